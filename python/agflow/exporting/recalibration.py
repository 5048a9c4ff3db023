"""The router of an int8 cascade: calibrated on the files that are served."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from agflow._utils.instruction_set import instruction_set
from agflow.cascade import Cascade, Router, calibrate_router, predict, tuned_on
from agflow.cascade.expert_costs import MEASURED, MS
from agflow.cascade.ledger import MACS, CascadeCosts
from agflow.data.batches import image_batches
from agflow.errors import InvalidValueError
from agflow.evaluation import Speed, time_models
from agflow.exporting.quantizing import Quantization
from agflow.models.exported import ExportedExpert

_TIMED_IMAGES, _ROUNDS = 32, 5
_LIMITS = {"accuracy": "tolerance"}
"""Targets of a router whose limit has another name where it is asked for."""


@dataclass(frozen=True)
class HeldOutImages:
    """Images that calibrate the threshold of a quantised cascade.

    Attributes
    ----------
    loader : batches of (images, labels) that neither trained, tuned nor quantised an expert
    tolerance : accepted loss of accuracy against the quantised heavy expert; None keeps the target
        and the limit of the router that is given

    Examples
    --------
    >>> import agflow, torch
    >>> batches = [(torch.zeros(2, 3, 8, 8), torch.arange(2))]
    >>> agflow.exporting.HeldOutImages(batches, tolerance=0.01).tolerance
    0.01
    """

    loader: Iterable
    tolerance: float | None = None


@dataclass(frozen=True)
class Served:
    """A quantised cascade, and how its speed compares with the float one's."""

    experts: tuple[ExportedExpert, ExportedExpert]
    cascade: Cascade
    router: Router
    speed: Speed
    conditions: str

    def beside(self, router: Router) -> str:
        """Markdown on the promises and the speeds of this cascade and of its float parent's."""
        rows = "".join(
            f"| {name} | {each.counts.line} | {each.rule} | {100 * each.escalation:.1f} % | "
            f"{100 * each.accuracy_cascade:.2f} % | {100 * each.accuracy_heavy:.2f} % | "
            f"{each.samples} |\n"
            for name, each in (("int8, this export", self.router), ("float32, torch", router))
        )
        notes = "".join(
            f"- `{expert.session.path.name}`: {_words(expert)}\n" for expert in self.experts
        )
        return (
            "The promise is of the files in this folder: the threshold was calibrated on their own "
            "predictions, and the heavy expert that it speaks of is the int8 one. That of the "
            "float pair, which was calibrated on its own images, stands beside it.\n\n"
            "| cascade | promise | rule | escalated | accuracy | heavy expert | images |\n"
            f"|---|---|---|---|---|---|---|\n{rows}\n"
            f"Of {self.conditions} the int8 cascade answers {self.speed.speed:.2f} times as many "
            f"images/s as the float32 one in torch ({self.speed.slowest:.2f} to "
            f"{self.speed.fastest:.2f} over the rounds: {self.speed.finding}).\n\n{notes}\n"
        )


def check_held_out(cascade: Cascade, quantize: str | None, held_out: HeldOutImages | None) -> None:
    """Check, before the work, that a quantised cascade gets a threshold of its own.

    Raises
    ------
    InvalidValueError
        It does not, or held-out images are given for a float one, whose threshold stays.
    """
    if quantize is None and held_out is not None:
        raise InvalidValueError(
            "held_out is given without quantize: a float export answers as its cascade does and "
            "keeps its threshold; leave held_out out, or quantise"
        )
    if quantize is not None and held_out is None:
        raise InvalidValueError(
            f"quantize={quantize!r} makes other experts than those that the router was calibrated "
            "on, so its promise would not hold: give held_out=HeldOutImages(loader) (--data) with "
            "labelled images that neither trained nor quantised an expert, and the threshold is "
            "calibrated anew"
        )
    if quantize is not None and cascade.shared_blocks:
        raise InvalidValueError(
            f"the cascade shares {cascade.shared_blocks} blocks and quantize is {quantize!r}: the "
            "parts of such a cascade are exported in float32 only; leave quantize out, or export "
            "the same experts without a shared prefix, agflow.Cascade(cascade.light, "
            "cascade.heavy, cascade.router), which agflow.save writes as a folder of its own"
        )


def recalibrated(
    cascade: Cascade, router: Router, folder: pathlib.Path, held_out: HeldOutImages
) -> Served:
    """Calibrate a router on the predictions of the files ``light.onnx`` and ``heavy.onnx``.

    Raises
    ------
    InvalidValueError
        Held-out images are known to have tuned or quantised an expert.
    """
    light, heavy = (ExportedExpert(folder / f"{role}.onnx") for role in ("light", "heavy"))
    predictions = predict(light, heavy, held_out.loader, costs=_costs(router))
    sketches = [str(expert.session.metadata.get("tuning") or "") for expert in (light, heavy)]
    predictions = tuned_on(predictions, " ".join(sketches).strip())
    limit = {"tolerance": held_out.tolerance}
    if held_out.tolerance is None:
        limit = {_LIMITS.get(router.target, router.target): router.limit}
    found = calibrate_router(
        predictions,
        prior=router.prior,
        confidence=router.confidence,
        ensemble=router.answers == "ensemble",
        **limit,
    )
    served = Cascade(light, heavy, found, max_batch=cascade.max_batch)
    images = next(image_batches(held_out.loader))[:_TIMED_IMAGES]
    timings = time_models(
        {"int8": served, "float": cascade}, images, batch=len(images), rounds=_ROUNDS
    )
    threads = torch.get_num_threads()
    conditions = (
        f"{len(images)} images in a batch, with {threads} thread{'s' * (threads > 1)} on a CPU "
        f"with {instruction_set()}"
    )
    return Served(
        (light, heavy), served, found, timings["int8"].speed_over(timings["float"]), conditions
    )


def _costs(router: Router) -> CascadeCosts | str | None:
    """Costs in the unit of the router that was given: counted, timed anew, or the same ones."""
    unit = router.ledger.cost_unit
    if unit == MACS:
        return None
    return MEASURED if unit == MS else router.ledger.costs


def _words(expert: ExportedExpert) -> str:
    """What the metadata of an int8 file say of it."""
    return str(Quantization.of(expert.session.metadata["quantization"]))
