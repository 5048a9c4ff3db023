"""Quantisation of exported experts, chosen by what it costs and what it loses on images.

Shape suffixes: B images of a batch, N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import numpy as np
import torch

from agflow._utils.instruction_set import instruction_set
from agflow._utils.onnx_session import OnnxSession
from agflow.data.batches import has_labels, image_batches, labelled_batches
from agflow.data.leakage import ImageSketch, image_hashes
from agflow.errors import EmptyError, InvalidValueError, UnsupportedModelError
from agflow.evaluation import Estimate, interleaved
from agflow.exporting.quantized_files import DYNAMIC, STATIC, WEIGHTS, write_quantized

CHOOSE = "int8"
METHODS = (DYNAMIC, STATIC, WEIGHTS)
QUANTIZATIONS = (CHOOSE, *METHODS)
TOLERANCE = 0.005  # of accuracy, which int8 may lose where it chooses
CALIBRATION_IMAGES = 128
_CANDIDATES = (DYNAMIC, STATIC)
_TIMED_IMAGES, _ROUNDS = 32, 7
_SEED = 0
_PARENT = "float32"
_NO_IMAGES = torch.empty(0)

Images = torch.Tensor | Iterable
"""Float [N, C, H, W], or batches of images, with labels or without, that can be read twice."""
Batch = tuple[torch.Tensor, torch.Tensor | None]
Read = Callable[[], Iterator[Batch]]
"""Begins a pass over images [B, C, H, W] and, where there are some, labels [B]."""


@dataclass(frozen=True)
class Quantization:
    """What an int8 file is, as its metadata ``quantization`` has it.

    Attributes
    ----------
    method : that made it
    calibration_images : whose activations set ranges; 0 where the method needs none
    images : other ones, on which it was compared with its float parent
    measure : ``"accuracy"`` where they have labels, else ``"agreement"``, by which ``loss`` is
    loss : of accuracy against the float parent, with its 95 % interval; or the share of the images
        that it answers otherwise. None without images
    agreement : share of the images that both answer alike
    speedup : seconds of the float parent over its own, median of interleaved rounds
    batch, threads : of the passes that were timed
    instruction_set : of the CPU that timed them
    runtime : that ran them
    """

    method: str
    calibration_images: int
    images: int
    measure: str
    loss: Estimate | None
    agreement: float | None
    speedup: float
    batch: int
    threads: int
    instruction_set: str
    runtime: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Quantization:
        """What the metadata of a file say."""
        loss = values["loss"]
        return cls(**{**values, "loss": loss and Estimate(**loss)})

    def __str__(self) -> str:
        speed = (
            f"{self.speedup:.2f}x the float file's images/s (batch {self.batch}, "
            f"{self.threads} thread{'s' * (self.threads > 1)}, {self.instruction_set})"
        )
        return f"{self.method}, {speed}, {self._loss}"

    @property
    def _loss(self) -> str:
        if self.loss is None:
            return "its loss was not measured: give images"
        loss, low, high = (100 * x for x in (self.loss.value, self.loss.low, self.loss.high))
        if self.measure == "agreement":
            return f"other answers on {loss:.2f} % of {self.images} images without labels"
        return (
            f"loses {loss:.2f} points ({low:.2f} to {high:.2f}) on {self.images} images, and "
            f"answers {100 * (self.agreement or 0):.1f} % alike"
        )


def check_quantization(quantize: str, format: str, images: Images | None) -> None:
    """Check a quantisation that was asked for, before the work.

    Raises
    ------
    InvalidValueError
        It is unknown or of another format, or needs images.
    """
    if quantize not in QUANTIZATIONS:
        raise InvalidValueError(
            f"quantize is {quantize!r}, expected one of {', '.join(QUANTIZATIONS)}"
        )
    if format != "onnx":
        raise InvalidValueError(
            f"quantize is {quantize!r} and the format {format!r}: int8 files are ONNX files, give "
            "format='onnx' or a path that ends in .onnx"
        )
    if images is None and quantize in (CHOOSE, STATIC):
        raise InvalidValueError(
            f"quantize={quantize!r} needs images (--data): some calibrate the ranges of the "
            "activations, and the others show what it loses; without any, int8-dynamic and "
            "int8-weights can be had"
        )


def quantize_file(
    plain: pathlib.Path,
    made: pathlib.Path,
    quantize: str,
    read: Read | None,
    threads: int,
    *,
    strict: bool = True,
) -> tuple[Quantization, str]:
    """Write an int8 file of a float one.

    For static ranges up to 128 images, drawn at random, calibrate. On all others, which have set
    nothing, each candidate is compared with the float file. The choice among candidates is by
    these, so that figures without that (small) advantage need other images.

    Parameters
    ----------
    quantize : ``"int8"`` takes the fastest candidate whose loss is at most 0.5 points; else the
        method
    read : begins a pass over the images; None where there are none
    threads : of the passes that are timed
    strict : whether ``"int8"`` refuses where no candidate keeps the tolerance; else it takes the
        one that loses least

    Returns
    -------
    what the file is, and the sketch of the images that calibrated or chose it

    Raises
    ------
    InvalidValueError
        No candidate keeps the tolerance; the message has the figures.
    EmptyError
        There are fewer than two images.
    UnsupportedModelError
        onnxruntime cannot quantise the file.
    """
    methods = _CANDIDATES if quantize == CHOOSE else (quantize,)
    calibration = _drawn(read) if read is not None and STATIC in methods else _NO_IMAGES
    candidates, reasons = {}, []
    for method in methods:
        file = made.with_name(f"{method}.onnx")
        try:
            write_quantized(method, plain, file, calibration.numpy())
        except UnsupportedModelError as error:
            reasons.append(str(error))
        else:
            candidates[method] = OnnxSession(file, threads)
    if not candidates:
        raise UnsupportedModelError("; ".join(reasons))
    trial = _Trial(OnnxSession(plain, threads), candidates)
    sketch = ImageSketch()
    if read is not None:
        trial.compare(read, calibration, sketch)
    found = {method: trial.found(method, len(calibration)) for method in candidates}
    chosen = _chosen(found, strict) if quantize == CHOOSE else found[quantize]
    os.replace(candidates[chosen.method].path, made)
    return chosen, str(sketch)


def batches_of(images: Images) -> Iterator[Batch]:
    """Images and labels, where there are some, of a tensor or of the batches of a loader."""
    if isinstance(images, torch.Tensor):
        yield from ((piece, None) for piece in images.split(_TIMED_IMAGES))
        return
    batches = iter(images)
    first = list(islice(batches, 1))
    every = chain(first, batches)
    if first and has_labels(first[0]):
        yield from ((batch.images, batch.labels) for batch in labelled_batches(every, "quantise"))
    else:
        yield from ((found, None) for found in image_batches(every, "quantise"))


def _drawn(read: Read) -> torch.Tensor:
    """Up to 128 images, and at most half of them, each equally likely (reservoir sampling)."""
    rng, kept, seen = np.random.default_rng(_SEED), [], 0
    for images_BCHW, _ in read():
        for image_CHW in images_BCHW:
            place = seen if seen < CALIBRATION_IMAGES else int(rng.integers(seen + 1))
            if place < CALIBRATION_IMAGES:
                kept[place : place + 1] = [image_CHW.float().cpu().clone()]
            seen += 1
    if seen < 2:
        raise EmptyError(
            f"there are {seen} images to quantise with, expected at least 2: some calibrate, and "
            "the others show what int8 loses"
        )
    order = rng.permutation(len(kept))[: min(CALIBRATION_IMAGES, seen // 2)]
    return torch.stack([kept[place] for place in sorted(order)])


class _Trial:
    """Int8 candidates beside their float parent, on images that have set nothing."""

    def __init__(self, parent: OnnxSession, candidates: dict[str, OnnxSession]):
        self.parent, self.candidates = parent, candidates
        self._answers: dict[str, list[np.ndarray]] = {_PARENT: [], **{m: [] for m in candidates}}
        self._labels: list[np.ndarray] = []
        self._timed: list[np.ndarray] = []  # images

    def compare(self, read: Read, calibration: torch.Tensor, sketch: ImageSketch) -> None:
        """Answer all images but those that calibrated; all go into the sketch."""
        drawn = set(image_hashes(calibration).tolist()) if len(calibration) else set()
        for images_BCHW, labels_B in read():
            hashes_B = image_hashes(images_BCHW)
            sketch.add_hashes(hashes_B)
            others_B = torch.tensor([each not in drawn for each in hashes_B.tolist()])
            if others_B.any():
                labels = None if labels_B is None else labels_B.cpu()[others_B].numpy()
                self._answer(images_BCHW.float().cpu()[others_B].numpy(), labels)
        if not self._answers[_PARENT]:
            raise EmptyError(
                "all images to quantise with are the same few that calibrate, expected others "
                "that show what int8 loses: give more images"
            )

    def _answer(self, images_BCHW: np.ndarray, labels_B: np.ndarray | None) -> None:
        for name, session in {_PARENT: self.parent, **self.candidates}.items():
            self._answers[name].append(session.run(images_BCHW).argmax(1))
        if labels_B is not None:
            self._labels.append(labels_B)
        self._timed.extend(images_BCHW[: _TIMED_IMAGES - len(self._timed)])

    def found(self, method: str, calibration_images: int) -> Quantization:
        loss = agreement = None
        answers, images = self._answers[method], 0
        if answers:
            own_N, parents_N = np.concatenate(answers), np.concatenate(self._answers[_PARENT])
            same_N = own_N == parents_N
            agreement, images = float(same_N.mean()), len(same_N)
            loss = Estimate.of_share(~same_N)
            if self._labels:
                labels_N = np.concatenate(self._labels)
                loss = Estimate.of_difference(parents_N == labels_N, own_N == labels_N)
        return Quantization(
            method,
            calibration_images if method == STATIC else 0,
            images,
            "accuracy" if self._labels else "agreement",
            loss,
            agreement,
            self._speedups[method],
            len(self._timed_images),
            self.parent.threads,
            instruction_set(),
            self.parent.runtime,
        )

    @property
    def _timed_images(self) -> np.ndarray:
        """The batch that is timed: real images, or noise where there are none."""
        if self._timed:
            return np.stack(self._timed)
        shape = (_TIMED_IMAGES, self.parent.channels or 0, *(self.parent.image_size or ()))
        return np.random.default_rng(_SEED).standard_normal(shape, np.float32)

    @cached_property
    def _speedups(self) -> dict[str, float]:
        images_BCHW = self._timed_images
        sessions = {_PARENT: self.parent, **self.candidates}
        timings = interleaved(
            {name: partial(session.run, images_BCHW) for name, session in sessions.items()},
            rounds=_ROUNDS,
        )
        parent = timings[_PARENT]
        return {name: timing.speed_over(parent).speed for name, timing in timings.items()}


def _chosen(found: dict[str, Quantization], strict: bool = True) -> Quantization:
    """The fastest candidate within the tolerance; without one, that of the least loss, or none."""
    losses = {each.method: each.loss for each in found.values() if each.loss is not None}
    kept = [found[method] for method, loss in losses.items() if loss.value <= TOLERANCE]
    if kept:
        return max(kept, key=lambda each: each.speedup)
    best = found[min(losses, key=lambda method: losses[method].value)]
    if not strict:
        return best
    cure = ""
    if best.measure == "agreement":
        cure = "give labelled images, on which the accuracy counts; "
    elif losses[best.method].low <= TOLERANCE:
        cure = "give more images, which say it more exactly; "
    raise InvalidValueError(
        f"int8 loses more than {100 * TOLERANCE:g} points here "
        f"({'; '.join(map(str, found.values()))}): {cure}take one by its name "
        f"(quantize={best.method!r}), or {WEIGHTS!r}, which keeps activations in float, or export "
        "without quantize="
    )
