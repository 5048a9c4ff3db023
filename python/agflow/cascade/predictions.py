"""Predictions of both experts, the calibrated threshold, and the honest cost: decided by the Go core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.ensemble import combine, fit_light_weight
from agflow.cascade.ledger import Costs
from agflow.cascade.priors import (
    AGREEMENT,
    LOGIT_PRIORS,
    PRIOR,
    SCALED,
    agreement,
    fit_temperature,
    priors,
)
from agflow.data.leakage import ImageSketch
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.evaluation.accuracy import logits
from agflow.models import count_macs
from agflow.table import Table

if TYPE_CHECKING:
    from agflow.cascade.router import Router


class Predictions(Table):
    """What both experts say about the same images.

    Columns: label int64, light_prediction int64, light_prior float32 (maximum softmax probability),
    heavy_prediction int64; then, for every other prior, a float32 column ``prior_NAME``, higher where the light expert
    is surer: margin (the two greatest probabilities apart), entropy (sum of p log p, which is minus the entropy),
    energy (log-sum-exp of the logits), each also with ``_scaled`` behind it, from logits over ``temperature``;
    l1_norm of the features, agreement of a second look (see :func:`agreement`) and others, where they were recorded.
    both_prediction int64, where it was recorded, is the class by the answers of both experts, combined with
    ``light_weight`` (see :func:`combine`). Metadata: the MACs of both experts, of what they share, and of a second look.
    """

    kind = "predictions"

    @property
    def light_accuracy(self) -> float:
        return float((self.columns["light_prediction"] == self.columns["label"]).mean())

    @property
    def heavy_accuracy(self) -> float:
        return float((self.columns["heavy_prediction"] == self.columns["label"]).mean())

    def prior(self, name: str) -> np.ndarray:
        """The column of a prior, float32 [N].

        Raises
        ------
        InvalidValueError
            It was not recorded.
        """
        if name == self.metadata["agflow.prior"]:
            return self.columns["light_prior"]
        if f"prior_{name}" not in self.columns:
            known = [
                self.metadata["agflow.prior"],
                *(
                    column.removeprefix("prior_")
                    for column in self.columns
                    if column.startswith("prior_")
                ),
            ]
            raise InvalidValueError(
                f"the predictions have no prior {name!r}; they have {', '.join(known)}"
            )
        return self.columns[f"prior_{name}"]

    @property
    def temperature(self) -> float:
        """Of the logits behind the priors named ``*_scaled``."""
        return float(self.metadata.get("agflow.temperature", 1.0))

    @property
    def light_weight(self) -> float:
        """The light expert's in ``both_prediction``; 0 where there is none."""
        return float(self.metadata.get("agflow.light_weight", 0.0))


def join_predictions(
    light_NK: torch.Tensor,
    heavy_NK: torch.Tensor,
    labels_N: torch.Tensor,
    costs: Costs,
    *,
    temperature: float | None = None,
    light_weight: float | None = None,
    features_NC: torch.Tensor | None = None,
    second_view_NK: torch.Tensor | None = None,
    recorded: Mapping[str, np.ndarray] | None = None,
    images: str = "",
    tuning: str = "",
) -> Predictions:
    """Predictions table from the logits of both experts on the same images.

    Parameters
    ----------
    temperature : of the scaled priors; by default fitted by :func:`fit_temperature`. Pass the router's for images that
        judge it.
    light_weight : of both_prediction; by default fitted by :func:`fit_light_weight`. Pass the router's for images that judge
        it. Experts of other classes have no both_prediction.
    features_NC : the light expert's last features, for the prior l1_norm
    second_view_NK : logits of a second look, for the prior agreement, which is charged ``costs.look``
    recorded : further priors by name, float32 [N], higher where the light expert is surer
    images, tuning : sketches (:func:`agflow.data.sketch_images`) of these images, and of those that tuned the experts
    """
    light_prediction, plain = priors(light_NK)
    heavy_prediction, _ = priors(heavy_NK)
    light_weight = (
        fit_light_weight(light_NK, heavy_NK, labels_N) if light_weight is None else light_weight
    )
    both = {}
    if light_weight is not None and light_NK.shape == heavy_NK.shape:
        both["both_prediction"], _ = priors(combine(light_NK, heavy_NK, light_weight))
    temperature = fit_temperature(light_NK, labels_N) if temperature is None else temperature
    more = {name: plain[name] for name in LOGIT_PRIORS[1:]}
    if temperature is not None:
        more |= {name + SCALED: values for name, values in priors(light_NK, temperature)[1].items()}
    if features_NC is not None:
        more["l1_norm"] = arrow.call_for_array(
            core().feature_norms, arrow.matrix(features_NC)
        ).to_numpy()
    if second_view_NK is not None:
        more[AGREEMENT] = agreement(light_NK, second_view_NK)
    more |= recorded or {}
    metadata = {
        "agflow.kind": Predictions.kind,
        "agflow.prior": PRIOR,
        "agflow.light_macs": str(costs.light),
        "agflow.heavy_macs": str(costs.heavy),
        "agflow.shared_macs": str(costs.shared),
    }
    if temperature is not None and temperature != 1.0:
        metadata["agflow.temperature"] = repr(temperature)
    if both:
        metadata["agflow.light_weight"] = repr(float(light_weight))
    if second_view_NK is not None:
        metadata["agflow.look_macs"] = str(costs.look)
    metadata |= {
        key: sketch
        for key, sketch in (("agflow.images", images), ("agflow.tuning", tuning))
        if sketch
    }
    columns = {
        "label": labels_N.numpy().astype(np.int64),
        "light_prediction": light_prediction,
        "light_prior": plain[PRIOR],
        "heavy_prediction": heavy_prediction,
        **both,
        **{f"prior_{name}": np.asarray(values, np.float32) for name, values in more.items()},
    }
    schema = pa.schema(
        [(name, pa.from_numpy_dtype(column.dtype)) for name, column in columns.items()], metadata
    )
    return Predictions(
        pa.record_batch([pa.array(column) for column in columns.values()], schema=schema)
    )


def predict(
    light: nn.Module,
    heavy: nn.Module,
    loader: Iterable,
    *,
    router: Router | None = None,
    features: bool = False,
    second_view: bool | nn.Module = False,
    shared_blocks: int = 0,
    tuning: str = "",
) -> Predictions:
    """Run both experts over ``loader`` (its order must not change between passes).

    Parameters
    ----------
    router : for test images: its temperature and light weight are used. By default both are fitted
        to a quarter of the images (:func:`join_predictions`)
    features : also record the prior l1_norm, of what enters the light expert's last linear layer
    second_view : also record the prior agreement, with what the light expert says of the mirrored image (True), or with what
        another light expert says of the image (that expert). A cascade that routes by it pays for the second pass too.
    shared_blocks : of the cascade to come (:class:`agflow.Cascade`), for its cost: an escalated image does not pay for them again
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that tuned an expert; a router is not calibrated on
        predictions that share images with it, as far as a sketch can tell

    Raises
    ------
    EmptyError
        The loader gave no batch.
    NonFiniteError
        An expert gave a logit that is NaN or infinite.
    UnsupportedModelError
        Features were asked for and the light expert has no linear layer.
    """
    with _last_features(light, features) as seen:
        images = ImageSketch()
        light_NK, labels = logits(light, images.watching(loader), description="light expert")
    costs, second_view_NK = Costs.of(light, heavy, shared_blocks), None
    if second_view is not False:
        looker, looked_at = (
            (light, _Mirrored(loader)) if second_view is True else (second_view, loader)
        )
        second_view_NK, _ = logits(looker, looked_at, description="second look")
        costs = replace(costs, look=count_macs(looker))
    heavy_NK, _ = logits(heavy, loader, description="heavy expert")
    return join_predictions(
        light_NK,
        heavy_NK,
        labels,
        costs,
        temperature=router and router.temperature,
        light_weight=router and router.light_weight,
        features_NC=torch.cat(seen) if features else None,
        second_view_NK=second_view_NK,
        images=str(images),
        tuning=tuning,
    )


@dataclass(frozen=True)
class _Mirrored:
    """A loader whose images are mirrored, left for right."""

    loader: Iterable

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((x.flip(-1), label) for x, label in self.loader)


@contextmanager
def _last_features(model: nn.Module, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """While open, forward passes append float32 [B, C], the input of the last linear layer, where that is wanted."""
    seen: list[torch.Tensor] = []
    if not wanted:
        yield seen
        return
    heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no linear layer, so its last features are unknown: leave features out"
        )
    hook = heads[-1].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach().float().cpu())
    )
    try:
        yield seen
    finally:
        hook.remove()
