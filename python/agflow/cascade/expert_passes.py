"""Passes of both experts over the same images.

Shape suffixes: B images of a batch, C channels or features, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.hooks import temporary_hooks
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import (
    ExtraPriors,
    FixedParameters,
    ImageSketches,
    Predictions,
    join_predictions,
)
from agflow.data.leakage import ImageSketch, image_hashes
from agflow.errors import UnsupportedModelError
from agflow.models import count_macs, model_logits
from agflow.models.passes import LABELS, run_models

if TYPE_CHECKING:
    from agflow.cascade.router import Router

LIGHT, HEAVY, SECOND_VIEW = "light expert", "heavy expert", "second view"
FEATURES, HASHES = "features", "hashes"


def predict(
    light: nn.Module,
    heavy: nn.Module,
    loader: Iterable,
    *,
    router: Router | None = None,
    features: bool = default("predict", "features"),
    second_view: bool | nn.Module = default("predict", "second_view"),
    shared_blocks: int = 0,
    tuning: str = "",
) -> Predictions:
    """Run both experts over the same images and record their predictions and priors.

    Under ``torchrun``, with ``DataLoader(…, sampler=DistributedSampler(dataset))``, each rank runs
    its share, and all get the predictions of all images, each once and in the dataset's order.

    Parameters
    ----------
    light, heavy : map [B, C, H, W] to logits [B, K]; each gets the images in its own dtype and on
        its own device
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
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that tuned an expert. A router
        is not calibrated on predictions that share images with it, as far as sketches show

    Raises
    ------
    EmptyError
        The loader gave no image.
    InvalidValueError, ShapeError, DtypeError
        A batch is not one of images and labels, labels are outside of the experts' classes, or the
        images do not fit an expert.
    NonFiniteError
        An expert gave a logit that is NaN or infinite.
    UnsupportedModelError
        Features were asked for and the light expert has no linear layer.

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
    costs = CascadeCosts.of(light, heavy, shared_blocks)
    recorder = _FeatureRecorder(light) if features else None
    experts = {LIGHT: recorder or light, HEAVY: heavy}
    if second_view is not False:
        viewer = light if second_view is True else second_view
        experts[SECOND_VIEW] = _Mirrored(light) if second_view is True else viewer
        costs = replace(costs, second_view=count_macs(viewer))

    def rows_of(images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = {HASHES: image_hashes(images_BCHW)}
        return rows if recorder is None else {**rows, FEATURES: recorder.features_BC}

    rows = run_models(experts, loader, description="predict", rows_of=rows_of)
    sketch = ImageSketch()
    sketch.add_hashes(rows[HASHES])
    return join_predictions(
        rows[LIGHT],
        rows[HEAVY],
        rows[LABELS],
        costs,
        fixed=fixed,
        extra=ExtraPriors(rows.get(FEATURES), rows.get(SECOND_VIEW)),
        sketches=ImageSketches(str(sketch), tuning),
    )


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
