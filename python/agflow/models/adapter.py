"""Adapters: what agflow needs to know of a model family to measure, cut and rebuild its models."""

from __future__ import annotations

import pathlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.modes import preserve_training_mode
from agflow.data.preprocessing import Preprocessing
from agflow.errors import UnsupportedModelError
from agflow.models.channel_group import ChannelGroup
from agflow.models.group_weights import weights_of
from agflow.models.outputs import logits_of
from agflow.models.slicing import cut_group

if TYPE_CHECKING:
    from agflow.models.tracing.kept import Kept


class Adapter(ABC):
    """Base of adapters, each of which knows one model family.

    Adapters are stateless: a layer found in one model names the same place in its copies. The
    models map images [B, C, H, W] to logits [B, K], or to an object that has them as
    ``.logits``. A cut must leave the function that the model computes with the removed channels of
    Y set to zero; where a norm reads Y (``embed``), with the norm over the kept channels. Layers of
    the groups ``"mlp"`` and ``"heads"`` are enough for an adapter.

    Attributes
    ----------
    family : short name, kept in expert folders
    models : the models it handles, in words
    library : that knows what preprocessing its models have
    any_size : whether its models take images of any size, so that theirs is what they are run on
    """

    family: ClassVar[str]
    models: ClassVar[str]
    library: ClassVar[str] = "timm"
    any_size: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, model: nn.Module) -> bool:
        """Whether the adapter knows what all parts of ``model`` compute; others are traced."""

    def refusal(self, model: nn.Module) -> str | None:
        """Why ``model`` is not supported in its state, with a cure; None when it is."""
        return None

    @abstractmethod
    def layers(self, model: nn.Module) -> list[ChannelGroup]:
        """Every prunable layer, in forward order."""

    def kept(self, model: nn.Module) -> Sequence[Kept]:
        """Channels that stay as they are, and why, for plans and people; none where not known."""
        return ()

    def weights(self, model: nn.Module, layer: ChannelGroup) -> list[tuple[torch.Tensor, int]]:
        """The 2-D weights attached to the layer's units, each with the axis of their channels.

        Here, those of its members.
        """
        return weights_of(model, layer)

    def cut(self, model: nn.Module, layer: ChannelGroup, keep_U: torch.Tensor) -> None:
        """Keep only the units ``keep_U`` (ascending int64) of ``layer``, in place.

        ``layer`` is of the model before any cut of its plan: other layers may have been cut since.
        The order is branches, stream, queries and keys, values, heads. The names of readers must
        stay. Here, what its members and attributes say: to be overridden where another cut moves
        its units.
        """
        cut_group(model, layer, keep_U)

    def costs(self, model: nn.Module) -> dict[str, Any] | None:
        """Costs of the model at any sizes, as JSON (:class:`agflow.models.costs.Costs`).

        None, where an adapter does not know, makes costs additive: each unit its ``unit_macs`` and
        ``unit_params``.
        """
        return None

    def watchable(self, model: nn.Module) -> AbstractContextManager:
        """Make the model call every module that has a tap, while entered, so that hooks on it fire.

        To be overridden for models that use such a module's weight without calling it; on exit the
        model is what it was.
        """
        return nullcontext()

    def output_scales(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """By reader, the factor γ [D] of its output in the residual stream (a LayerScale, or 1).

        Readers that are not named have one that is solved for, which a factor below a ten
        thousandth is too small for.
        """
        return {}

    @abstractmethod
    def input_size(self, model: nn.Module) -> tuple[int, int, int]:
        """Channels, height and width of the images the model takes."""

    def preprocessing(self, model: nn.Module, folder: pathlib.Path | None = None) -> Preprocessing:
        """What the model's images need, at the size that it takes; here, what timm knows of it.

        For models that timm did not create that is the mean and std of ImageNet.

        Parameters
        ----------
        folder : where the weights are from, if they are from a file
        """
        import timm.data  # seconds to import

        config = timm.data.resolve_model_data_config(model)
        # timm reports the size of the published weights, even of a model made for another size.
        return Preprocessing(
            self.input_size(model)[1:],
            tuple(config["mean"]),
            tuple(config["std"]),
            config["interpolation"],
            config["crop_pct"],
            config["crop_mode"],
        )

    def files(self, preprocessing: Preprocessing) -> dict[str, str]:
        """Files that the library reads beside the weights, by name; an expert's folder has them.

        Here none.
        """
        return {}

    def class_count(self, model: nn.Module) -> int:
        """Number of classes; here, the logits that the model gives for one image."""
        images = torch.zeros(1, *self.input_size(model)).to(first_parameter(model))
        with preserve_training_mode(model), torch.no_grad():
            return logits_of(model.eval()(images)).shape[-1]

    def class_names(self, model: nn.Module) -> list[str] | None:
        """Names of the classes in the order of the logits; None where they are not known.

        Here, those that :meth:`name_classes` noted.
        """
        return vars(model).get("class_names")

    def name_classes(self, model: nn.Module, names: list[str]) -> None:
        """Note the names of the classes, in the order of the logits."""
        vars(model)["class_names"] = names

    def keep_classes(self, model: nn.Module, keep_K: torch.Tensor) -> None:
        """Keep only the classes ``keep_K`` (int64, in that order) of the classifier, in place.

        Raises
        ------
        UnsupportedModelError
            The adapter does not know how.
        """
        raise UnsupportedModelError(
            f"the classes of {type(model).__name__} cannot be changed: its adapter has no "
            "keep_classes"
        )

    def set_image_size(self, model: nn.Module, height: int, width: int) -> None:
        """Change the model, in place, to images of ``height`` x ``width`` pixels.

        Position embeddings are interpolated.

        Raises
        ------
        InvalidValueError
            No model of this family can have that size.
        UnsupportedModelError
            The adapter does not know how, or this model cannot be changed.
        """
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be given another image size: its adapter has no "
            "set_image_size"
        )

    def split(self, model: nn.Module, blocks: int) -> tuple[nn.Module, nn.Module]:
        """As :func:`agflow.models.split`; UnsupportedModelError where it is not known how."""
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be split behind a block: its adapter has no split"
        )

    def prefix_macs(self, model: nn.Module, blocks: int) -> int:
        """As :func:`agflow.models.prefix_macs`; UnsupportedModelError where it is not known."""
        raise UnsupportedModelError(
            f"the MACs of the first blocks of {type(model).__name__} are not known: its adapter "
            "has no prefix_macs"
        )

    def last_block(self, model: nn.Module) -> nn.Module:
        """The module whose output a distillation takes for the features of the model.

        Here the block that holds the last prunable layer: a member of the outermost
        ``nn.Sequential`` or ``nn.ModuleList`` around it.

        Raises
        ------
        UnsupportedModelError
            The blocks are in no such list.
        """
        return _outermost_block(model, self.layers(model)[-1].name)

    @abstractmethod
    def macs(self, model: nn.Module) -> int:
        """Exact multiply-accumulates per image, both attention products included."""

    @abstractmethod
    def describe(self, model: nn.Module) -> dict[str, Any]:
        """JSON-ready description of the architecture, widths of cut layers included."""

    @abstractmethod
    def build(self, description: dict[str, Any]) -> nn.Module:
        """A model of that architecture; its weights are not set."""


def _outermost_block(model: nn.Module, name: str) -> nn.Module:
    """The module around ``name`` that stands in the outermost list of modules."""
    path = name.split(".")
    for depth in range(1, len(path) + 1):
        parent = model.get_submodule(".".join(path[: depth - 1]))
        if isinstance(parent, (nn.ModuleList, nn.Sequential)):
            return model.get_submodule(".".join(path[:depth]))
    raise UnsupportedModelError(
        f"the blocks of {type(model).__name__} stand in no nn.Sequential or nn.ModuleList, "
        "so the last one is unknown: leave features out"
    )


def macs_of_layers(layers: list[ChannelGroup]) -> int:
    """Multiply-accumulates per image of layers that have none in common: ``"mlp"``, ``"heads"``.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import adapter_for, macs_of_layers
    >>> model, _, _ = agflow.load_model("example")
    >>> layers = adapter_for(model).layers(model)
    >>> mlps = macs_of_layers([layer for layer in layers if layer.kind == "mlp"])
    >>> 0 < mlps < agflow.count_macs(model)
    True
    """
    return sum(layer.units * layer.unit_macs for layer in layers)
