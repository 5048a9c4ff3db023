"""Held-out images of a fine-tuning: the accuracy after every epoch, and the best weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from agflow._utils.devices import device_of
from agflow._utils.ranks import Ranks
from agflow.data.leakage import image_hashes
from agflow.errors import InvalidValueError
from agflow.models.passes import LABELS, Rows, run_models
from agflow.training.digests import hash_tensors, named_tensors
from agflow.training.feature_objective import COSINES, cosine_rows
from agflow.training.history import ACCURACY, COSINE, HELD_OUT, best_epoch
from agflow.training.replay import generators_of, seeded


class HeldOut:
    """Measures a model on images that do not train it, and keeps its best weights.

    The model that the training begins with is the first candidate. A later epoch replaces the best
    one where its accuracy is as high: of equal ones the longer trained is kept. Torch's generators
    are left as they were, so that training draws the same with held-out images and without.

    Parameters
    ----------
    model : as the training begins with it
    loader : batches of (images, labels), read once now and once an epoch; None measures nothing
    ranks : that train together. Where they hold different images, all of these count
    teacher : of a model without a classifier, of which the mean cosine of its features to the
        teacher's is measured; None measures the accuracy by labels

    Attributes
    ----------
    start : accuracy, in [0, 1], or cosine before the training; None without images
    digest : of the images and labels, whatever their order; None without images
    best : the best tensors by name; empty without images
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable | None,
        ranks: Ranks,
        teacher: nn.Module | None = None,
    ):
        self._model, self._loader, self._ranks, self._teacher = model, loader, ranks, teacher
        self.start: float | None = None
        self.digest: str | None = None
        self.best: dict[str, torch.Tensor] = {}
        if loader is None:
            return
        if isinstance(loader, Iterator):
            raise InvalidValueError(
                f"held_out is a {type(loader).__name__}, which can be read only once, and it is "
                "read after every epoch: pass a DataLoader or a list of batches"
            )
        rows = self._run(loader)
        self.start, self.digest = self._measured(rows), _digest(rows)
        self.best = {name: tensor.detach().clone() for name, tensor in named_tensors(model)}

    def measure(self, history: list[dict[str, float]]) -> None:
        """Add what is measured to the history's last epoch; keep the weights of a best one."""
        if self._loader is None:
            return
        measure = ACCURACY if self._teacher is None else COSINE
        history[-1][HELD_OUT + measure] = self._measured(self._run(self._loader))
        if best_epoch(self.start, history) == history[-1]["epoch"]:
            _copy(dict(named_tensors(self._model)), self.best)

    @contextmanager
    def keeping_best(self) -> Iterator[None]:
        """Give the model its best weights on exit, however the training ends."""
        try:
            yield
        finally:
            _copy(self.best, dict(named_tensors(self._model)))

    def _run(self, loader: Iterable) -> Rows:
        def hashes(images_BCHW: torch.Tensor) -> Rows:
            return {"images": image_hashes(images_BCHW)}

        generators = generators_of(loader)
        states = [generator.get_state() for generator in generators]
        with seeded(0, device_of(self._model)):
            if self._teacher is not None:
                rows = cosine_rows(self._model, self._teacher, loader, hashes)
            else:
                rows = run_models(
                    {"model": self._model}, loader, description="held out", rows_of=hashes
                )
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        return rows

    def _measured(self, rows: Rows) -> float:
        if COSINES in rows:
            correct = float(rows[COSINES].sum())
        else:
            correct = int((rows["model"].argmax(1) == rows[LABELS]).sum())
        correct, images = self._ranks.sum(correct, len(rows["images"]))
        return correct / images


def _digest(rows: Rows) -> str:
    order = rows["images"].argsort(stable=True)
    known = (name for name in ("images", LABELS) if name in rows)
    return hash_tensors({name: rows[name][order] for name in known}).hexdigest()


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, Any]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
