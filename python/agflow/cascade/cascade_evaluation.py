"""Evaluation of a cascade by running it over test images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from agflow._utils.ranks import Ranks
from agflow.cascade.cascade import Cascade
from agflow.cascade.folder import router_of
from agflow.cascade.ledger import Ledger
from agflow.cascade.predictions import Predictions
from agflow.cascade.router_evaluation import RouterEvaluation, evaluate_router
from agflow.cascade.verdict import Verdict
from agflow.data.leakage import ImageSketch, image_hashes
from agflow.errors import InvalidValueError
from agflow.evaluation.accuracy import top1
from agflow.models.passes import LABELS, run_models


def evaluate_cascade(
    cascade: Cascade, loader: Iterable, predictions: Predictions
) -> RouterEvaluation:
    """Evaluate a cascade by running it over the images of ``predictions``.

    The accuracy and the ledger are those of the run, everything else is :func:`evaluate_router`'s.

    Parameters
    ----------
    cascade : one with a calibrated router; its ledger is reset
    loader : batches of (images [B, C, H, W], labels [B]), see :mod:`agflow.data.batches`
    predictions : of the same images, made with the router's temperature and light weight

    Raises
    ------
    EmptyError
        The loader gave no image.
    InvalidValueError
        The images are others than those of the predictions; or as :func:`evaluate_router`.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader, Subset
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=192)
    >>> held_out, test = (
    ...     DataLoader(Subset(images, part), 64) for part in (range(128), range(128, 192))
    ... )
    >>> router = agflow.calibrate_router(agflow.predict(light, heavy, held_out), escalation=0.5)
    >>> predictions = agflow.predict(light, heavy, test, router=router)
    >>> cascade = agflow.Cascade(light, heavy, router)
    >>> agflow.cascade.evaluate_cascade(cascade, test, predictions).ledger.samples
    64
    """
    router = router_of(cascade)
    expected = evaluate_router(predictions, router)
    cascade.reset_ledger()
    rows = run_models(
        {"cascade": cascade},
        loader,
        description="cascade",
        rows_of=lambda images_BCHW: {"hashes": image_hashes(images_BCHW)},
    )
    _check_same_images(predictions, rows["hashes"])
    accuracy = top1(rows["cascade"], rows[LABELS])
    ledger = _ledger_of_all(cascade, len(rows[LABELS]))
    found = replace(expected, cascade=accuracy, ledger=ledger)
    return replace(found, counts=Verdict.of(router, found))


def _ledger_of_all(cascade: Cascade, images: int) -> Ledger:
    """The ledger of all images, of which this process ran all, or its share."""
    own = cascade.ledger
    if own.samples == images:
        return own
    escalated = sum(map(int, Ranks.of_process().gather(str(own.escalated).encode())))
    return Ledger.of(cascade.costs, images, escalated)


def _check_same_images(predictions: Predictions, hashes_N: torch.Tensor) -> None:
    """Check that images, in whatever order, are those of the predictions, as far as these say."""
    sketch, known = ImageSketch(), predictions.metadata.get("agflow.images")
    sketch.add_hashes(hashes_N)
    if len(hashes_N) != len(predictions) or known not in (None, str(sketch)):
        raise InvalidValueError(
            f"the loader gave {len(hashes_N)} images, which are not the {len(predictions)} of the "
            "predictions, expected the same ones: pass the loader that they were made with, "
            "without random augmentation"
        )
