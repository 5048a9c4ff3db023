"""Passes of both experts over the same images.

Shape suffixes: B images of a batch, C channels or features, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow._utils.hooks import temporary_hooks
from agflow.cascade.expert_costs import (
    MS,
    Costs,
    are_timed,
    costs_on_images,
    costs_without_images,
)
from agflow.cascade.ledger import MACS, CascadeCosts
from agflow.cascade.predictions import (
    ExtraPriors,
    FixedParameters,
    ImageSketches,
    Predictions,
    join_predictions,
)
from agflow.data.leakage import ImageSketch, image_hashes
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models import as_module, model_logits
from agflow.models.passes import LABELS, run_models

if TYPE_CHECKING:
    from agflow.cascade.router import Router

LIGHT, HEAVY, SECOND_VIEW = "light expert", "heavy expert", "second view"
FEATURES, HASHES, COSTS = "features", "hashes", "costs"
CLOCK = "agflow.clock"
"""Metadata of predictions whose costs were timed, as JSON: images of a batch, threads, device."""


def predict(
    light: nn.Module | Callable,
    heavy: nn.Module | Callable,
    loader: Iterable,
    *,
    router: Router | None = None,
    features: bool = default("predict", "features"),
    second_view: bool | nn.Module | Callable = default("predict", "second_view"),
    shared_blocks: int = 0,
    costs: Costs = None,
) -> Predictions:
    """Run both experts over the same images and record their predictions and priors.

    Under ``torchrun``, with ``DataLoader(…, sampler=DistributedSampler(dataset))``, each rank runs
    its share, and all get the predictions of all images, each once and in the dataset's order.

    Parameters
    ----------
    light, heavy : any two models that map [B, C, H, W] to logits [B, K], functions included
        (:func:`agflow.models.as_module`); each gets the images in its own dtype and on its own
        device
    loader : batches of (images [B, C, H, W], labels [B]), see :mod:`agflow.data.batches`. It is
        read once: both experts answer a batch before the next one, so that it may shuffle
    router : for test images: its temperature and light weight are used. By default both are fitted
        to a quarter of the images (:func:`agflow.cascade.join_predictions`)
    features : also record the prior l1_norm, of the input of the light expert's last linear layer
    second_view : also record the prior agreement, with the light expert's answer to the mirrored
        image (True) or with another light expert's answer to the image (that expert). A cascade
        that routes by it pays for the second pass too
    shared_blocks : first blocks that the cascade will share (:class:`agflow.Cascade`); an escalated
        image does not pay for them again
    costs : of one image: a pair (light, heavy), CascadeCosts in any unit, or ``"measured"``, which
        times both experts in ms an image on the first batch, so by its size and the experts'
        threads, which the metadata ``agflow.clock`` holds. None counts MACs
        (:func:`agflow.models.model_macs`) or, of an ONNX file that does not hold them, times both

    Raises
    ------
    EmptyError
        The loader gave no image.
    InvalidValueError, ShapeError, DtypeError
        A batch is not one of images and labels, labels are outside of the experts' classes, the
        images do not fit an expert, or costs are none.
    NonFiniteError
        An expert gave a logit that is NaN or infinite.
    UnsupportedModelError
        The MACs of an expert cannot be counted, it cannot be called, or features were asked for and
        the light expert has no linear layer.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=64)
    >>> len(agflow.predict(light, heavy, DataLoader(images, 32)))
    64
    """
    fixed = FixedParameters()
    if router is not None:
        fixed = FixedParameters(router.temperature, router.light_weight)
    light, heavy = as_module(light), as_module(heavy)
    recorder = _FeatureRecorder(light) if features else None
    experts = {LIGHT: recorder or light, HEAVY: heavy}
    viewer = None
    if second_view is not False:
        viewer = light if second_view is True else as_module(second_view)
        experts[SECOND_VIEW] = _Mirrored(light) if second_view is True else viewer
    pricing = _Pricing(light, heavy, viewer, shared_blocks, costs)

    def rows_of(images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = {HASHES: image_hashes(images_BCHW), COSTS: pricing.rows(images_BCHW)}
        return rows if recorder is None else {**rows, FEATURES: recorder.features_BC}

    rows = run_models(experts, loader, description="predict", rows_of=rows_of)
    sketch = ImageSketch()
    sketch.add_hashes(rows[HASHES])
    found = join_predictions(
        rows[LIGHT],
        rows[HEAVY],
        rows[LABELS],
        pricing.of_rows(rows[COSTS]),
        fixed=fixed,
        extra=ExtraPriors(rows.get(FEATURES), rows.get(SECOND_VIEW)),
        sketches=ImageSketches(str(sketch)),
    )
    return Predictions(found.batch, {CLOCK: pricing.clock}) if pricing.clock else found


def tuned_on(predictions: Predictions, sketch: str) -> Predictions:
    """Note in predictions which images tuned the experts.

    A router is not calibrated on predictions that share images with these, as far as sketches show.

    Parameters
    ----------
    sketch : of those images (:func:`agflow.data.sketch_images`); "" notes nothing

    Examples
    --------
    >>> import agflow, torch
    >>> predictions = agflow.cascade.join_predictions(
    ...     torch.eye(4), torch.eye(4), torch.arange(4), agflow.cascade.CascadeCosts(20, 100)
    ... )
    >>> sketch = agflow.data.sketch_images([torch.zeros(1, 3, 4, 4)])
    >>> agflow.cascade.tuned_on(predictions, sketch).metadata["agflow.tuning"] == sketch
    True
    """
    return Predictions(predictions.batch, {"agflow.tuning": sketch}) if sketch else predictions


class _Pricing:
    """Costs of the experts as rows of the first batch, which all ranks share."""

    def __init__(
        self,
        light: nn.Module,
        heavy: nn.Module,
        viewer: nn.Module | None,
        shared_blocks: int,
        costs: Costs,
    ):
        self._experts, self._viewer, self._shared_blocks = (light, heavy), viewer, shared_blocks
        self._costs = costs_without_images(light, heavy, costs, shared_blocks)
        self._measured = self._costs is None and are_timed(light, heavy, costs)
        self._given = self._costs is not None and costs is not None
        self._row: torch.Tensor | None = None
        self.clock = ""

    def rows(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """The costs, float64 [B, 4], once for each image."""
        if self._row is None:
            found = self._found(images_BCHW)
            if self._measured:
                device = str(device_of(self._experts[1]))
                conditions = {"batch": len(images_BCHW), "threads": torch.get_num_threads()}
                self.clock = json.dumps({**conditions, "device": device})
            self._row = torch.tensor(
                [found.light, found.heavy, found.shared, found.second_view], dtype=torch.float64
            )
        return self._row.expand(len(images_BCHW), -1)

    def of_rows(self, rows_N4: torch.Tensor) -> CascadeCosts:
        """The costs of the first image, which are those of all."""
        unit = MS if self._measured else MACS
        return CascadeCosts(*rows_N4[0].tolist(), unit=self._costs.unit if self._costs else unit)

    def _found(self, images_BCHW: torch.Tensor) -> CascadeCosts:
        light, heavy = self._experts
        costs = self._costs or costs_on_images(
            light, heavy, images_BCHW, self._shared_blocks, measured=self._measured
        )
        if self._viewer is None or costs.second_view:
            return costs
        if self._viewer is light:
            return replace(costs, second_view=costs.light)
        if self._given:
            raise InvalidValueError(
                "costs are those of the light and the heavy expert, and another one gives the "
                "second view: give CascadeCosts(light, heavy, second_view=…, unit=…)"
            )
        of_view = costs_on_images(self._viewer, heavy, images_BCHW, measured=self._measured)
        return replace(costs, second_view=of_view.light)


class _Mirrored(nn.Module):
    """An expert that sees its images mirrored, left for right."""

    def __init__(self, expert: nn.Module):
        super().__init__()
        self.expert = expert

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return model_logits(self.expert, images_BCHW.flip(-1))


class _FeatureRecorder(nn.Module):
    """An expert that keeps the input of its last linear layer, float32 [B, C], of the last batch.

    Its hook is there only while it runs: the other models of a pass may be the same module.
    """

    def __init__(self, expert: nn.Module):
        super().__init__()
        heads = [module for module in expert.modules() if isinstance(module, nn.Linear)]
        if not heads:
            raise UnsupportedModelError(
                f"{type(expert).__name__} has no linear layer, expected one behind its last "
                "features: leave features out"
            )
        self.expert, self._head = expert, [heads[-1]]  # in a list: a module of the expert alone
        self.features_BC = torch.empty(0)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        def keep(_, inputs: tuple) -> None:
            self.features_BC = inputs[0].detach().float().cpu()

        with temporary_hooks([self._head[0].register_forward_pre_hook(keep)]):
            return model_logits(self.expert, images_BCHW)
