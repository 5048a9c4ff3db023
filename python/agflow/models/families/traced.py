"""Any network that no family declares and that torch.export takes: its graph says all of it.

The groups are those that the trace proves. The classes, the image size and the parts of the model
are found by running it; an expert's folder holds what tells it from the model its library makes.
"""

# torch types every submodule as `Tensor | Module`.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.modes import evaluating
from agflow.data.preprocessing import Preprocessing
from agflow.data.processors import preprocessing_like
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models.adapter import Adapter
from agflow.models.callables import FunctionModule
from agflow.models.channel_group import ChannelGroup
from agflow.models.classifier import watched
from agflow.models.copying import copy_of
from agflow.models.counting import counted_macs
from agflow.models.families import classifiers, graph_halves
from agflow.models.families.answers import answers_of
from agflow.models.families.differences import apply, differences
from agflow.models.families.origins import (
    OWN,
    Origin,
    class_name,
    dense_of,
    give_constants,
    note_dense,
    note_origin,
    origin_of,
    own_origin,
    without_weights,
)
from agflow.models.families.processor_file import saved_processor
from agflow.models.families.timm_config import (
    config_of,
    names_of,
    plain_config,
    restored_config,
    set_config,
)
from agflow.models.group_weights import weights_of
from agflow.models.image_sizes import known_size, note_size, torchvision_transforms
from agflow.models.last_map import last_map
from agflow.models.slicing import cut_group

if TYPE_CHECKING:
    from agflow.models.tracing.kept import Kept

_SIZES = re.compile(r"size|shape|dimension|divisible|multiple|larger|smaller|match|bounds", re.I)
"""Words of errors about the sizes of tensors."""

_FROZEN = "torch.jit", "torch.export"
"""Where the classes are whose instances have no code that a cut could change."""


class TracedModel(Adapter):
    """Adapter for all models that no other knows, by their traced graph."""

    family = "traced"
    models = "any network of images that torch.export takes"
    library = "its library"
    any_size = True

    def recognises(self, model: nn.Module) -> bool:
        return isinstance(model, nn.Module)

    def refusal(self, model: nn.Module) -> str | None:
        if isinstance(model, FunctionModule):
            return "it is a function, which shows no layers: pass the module that it calls"
        if any(kind.__module__.startswith(_FROZEN) for kind in type(model).__mro__):
            return "it was exported or scripted: pass the model that it was made from"
        if next(model.parameters(), None) is None:
            return "it has no parameters"
        return None

    # Units

    def layers(self, model: nn.Module) -> list[ChannelGroup]:
        """As :meth:`Adapter.layers`; UnsupportedModelError where nothing is proven."""
        traced = self._traced(model)
        if not traced.groups:
            reasons = "; ".join(map(str, traced.kept[:3])) or _why_nothing(traced)
            raise UnsupportedModelError(
                f"nothing of {type(model).__name__} can be pruned: {reasons}"
            )
        return list(traced.groups)

    def kept(self, model: nn.Module) -> Sequence[Kept]:
        return self._traced(model).kept

    def weights(self, model: nn.Module, layer: ChannelGroup) -> list[tuple[torch.Tensor, int]]:
        return weights_of(model, layer)

    def cut(self, model: nn.Module, layer: ChannelGroup, keep_U: torch.Tensor) -> None:
        note_origin(model)
        cut_group(model, layer, keep_U)

    def costs(self, model: nn.Module) -> dict[str, Any]:
        return self._traced(model).costs.to_json()

    def macs(self, model: nn.Module) -> int:
        size = self.input_size(model)
        return counted_macs(model, lambda: _run(model, size), type(model).__name__)

    def last_block(self, model: nn.Module) -> nn.Module:
        return last_map(model, self.input_size(model))

    def _traced(self, model: nn.Module) -> Any:
        from agflow.models.tracing.network import traced_network  # seconds to import

        return traced_network(model, self.input_size(model))

    # Images

    def input_size(self, model: nn.Module) -> tuple[int, int, int]:
        return known_size(model)

    def set_image_size(self, model: nn.Module, height: int, width: int) -> None:
        if height < 1 or width < 1:
            raise InvalidValueError(
                f"the image size is {height}x{width}, expected at least one pixel each"
            )
        size = self.input_size(model)[0], height, width
        _run(model, size)
        note_size(model, size)

    def preprocessing(self, model: nn.Module, folder: pathlib.Path | None = None) -> Preprocessing:
        """That of the library: torchvision's transforms, an image processor, or timm's config."""
        size = self.input_size(model)[1:]
        origin = origin_of(model)
        if origin["library"] == "torchvision":
            transforms = torchvision_transforms(origin["name"], origin.get("weights"))
            return preprocessing_like(transforms, size)
        if origin["library"] == "transformers" and (values := saved_processor(model, folder)):
            return preprocessing_like(values, size)
        return super().preprocessing(model, folder)

    # Classes

    def class_count(self, model: nn.Module) -> int:
        size = self.input_size(model)
        return watched(model, lambda: _run(model, size))[1].classes

    def class_names(self, model: nn.Module) -> list[str] | None:
        return super().class_names(model) or names_of(model)

    def keep_classes(self, model: nn.Module, keep_K: torch.Tensor) -> None:
        note_origin(model)
        classifiers.keep_classes(model, self.input_size(model), keep_K)

    # Halves

    def split(self, model: nn.Module, blocks: int) -> tuple[nn.Module, nn.Module]:
        return graph_halves.split(model, self.input_size(model), blocks)

    def prefix_macs(self, model: nn.Module, blocks: int) -> int:
        return graph_halves.prefix_macs(model, self.input_size(model), blocks)

    # Folders

    def describe(self, model: nn.Module) -> dict[str, Any]:
        origin, changes = _described(model)
        try:
            size = list(self.input_size(model))
        except UnsupportedModelError:
            size = None
        answers = answers_of(model, size) if origin["library"] == OWN else None
        return {
            "origin": origin,
            "changes": changes,
            "input_size": size,
            "answers": answers,
            "pretrained_cfg": plain_config(
                model, self.class_count(model) if config_of(model) else 0
            ),
        }

    def build(self, description: dict[str, Any]) -> nn.Module:
        origin = description["origin"]
        return self._built(description, give_constants(dense_of(origin), origin))

    def build_from(self, description: dict[str, Any], dense: nn.Module) -> nn.Module:
        """Build a model of the user's own, whose dense model the user gives; see :meth:`build`."""
        origin = description["origin"]
        if origin["library"] != OWN:
            raise InvalidValueError(
                f"the expert's model is one of {origin['library']} and made by it: leave model out"
            )
        if class_name(dense) != origin["class"]:
            raise InvalidValueError(
                f"the model given is a {class_name(dense)}, the expert is a {origin['class']}: "
                "give the dense model that it was cut from"
            )
        return self._built(description, without_weights(dense))

    def _built(self, description: dict[str, Any], dense: nn.Module) -> nn.Module:
        origin = description["origin"]
        model = copy_of(dense) if origin["library"] == OWN else dense
        apply(description["changes"], model)
        if origin["library"] == OWN:
            note_dense(model, origin, dense)
        else:
            note_origin(model, origin)
        if description["input_size"] is not None:
            note_size(model, description["input_size"])
        config = restored_config(description["pretrained_cfg"])
        if config:
            set_config(model, config)
        return model


def _why_nothing(traced: Any) -> str:
    """What to say of a network in whose graph no channels were found."""
    from agflow.models.tracing.graph import runs_under_autocast  # seconds to import

    if runs_under_autocast(traced.program):
        return (
            "its forward pass turns autocast on, and what runs so has other numbers than the "
            "proof's: take that out of the module, and call the model inside torch.autocast"
        )
    return "no two of its layers have channels"


def _run(model: nn.Module, size: tuple[int, int, int]) -> Any:
    """What the model puts out for one image of a size, which it may not take."""
    image = torch.zeros(1, *size).to(first_parameter(model))
    try:
        with evaluating(model), torch.no_grad():
            return model(image)
    except Exception as error:  # whatever the model does with such images
        reason = (str(error) or type(error).__name__).splitlines()[0]
        channels, height, width = size
        of_sizes = isinstance(error, AssertionError) or _SIZES.search(reason)
        raise UnsupportedModelError(
            f"{type(model).__name__} does not run on images of {height}x{width} pixels and "
            f"{channels} channels ({reason}): "
            + (
                "its layers fit one size, or need larger images"
                if of_sizes
                else f"model.eval()(torch.zeros(1, {channels}, {height}, {width})) shows where"
            )
        ) from error


def _described(model: nn.Module) -> tuple[Origin, dict[str, Any]]:
    """The origin of a model and what tells it from its dense one."""
    origin = origin_of(model)
    try:
        return origin, differences(model, dense_of(origin))
    except UnsupportedModelError:  # changed since its origin was noted
        origin = own_origin(model)
        return origin, differences(model, dense_of(origin))
