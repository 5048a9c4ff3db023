"""``agflow bench cascade``: a cascade's overhead over its two bare passes, and its images a second.

Weights and images are random, and the threshold makes a given share escalate: none of these matters
to the time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from agflow._utils.defaults import default
from agflow.bench import machine
from agflow.bench.memory import keep_freed
from agflow.cascade.cascade import Cascade
from agflow.cascade.priors import MAX_PROBABILITY, priors
from agflow.cascade.server import Server
from agflow.errors import InvalidValueError
from agflow.evaluation.durations import Durations, Latency
from agflow.evaluation.timing import interleaved
from agflow.models import adapter_for
from agflow.models.resolution import at_image_size

HEAVY, LIGHT, CASCADE, SERVER = "heavy", "light", "cascade", "server"  # contenders by name
BARE_PASSES = "two bare passes"
MAX_WAIT_MS = 5.0


@torch.no_grad()
def measure(
    *,
    model: str = default("bench_cascade", "model"),
    image_size: int = default("bench_cascade", "image_size"),
    escalation: float = default("bench_cascade", "escalation"),
    batch_sizes: tuple[int, ...] = default("bench_cascade", "batch_sizes"),
    images: int = default("bench_cascade", "images"),
    rounds: int = default("bench_cascade", "rounds"),
) -> dict:
    """Measure a cascade, its server and its experts on the same images.

    From then on this process keeps the memory it frees (:func:`agflow.bench.memory.keep_freed`).

    Parameters
    ----------
    model : name of a timm VisionTransformer, the heavy expert
    image_size : pixels at which the same model is the light expert
    escalation : share of the images that escalate
    images : of a round

    Returns
    -------
    figures ready for JSON

    Raises
    ------
    InvalidValueError
        timm has no such model, it cannot have that image size, the share is not in [0, 1], or there
        is less than one round, image or batch.
    """
    if min(rounds, images, *batch_sizes) < 1 or not 0 <= escalation <= 1:
        raise InvalidValueError(
            f"rounds is {rounds}, images {images}, batch_sizes {list(batch_sizes)} and escalation "
            f"{escalation}, expected whole numbers from 1 and a share from 0 to 1"
        )
    import timm

    if not timm.is_model(model):
        raise InvalidValueError(f"timm has no model {model!r}: see timm.list_models('*vit*')")
    keep_freed()
    torch.manual_seed(0)
    heavy = timm.create_model(model).eval()
    x = torch.randn(images, *adapter_for(heavy).input_size(heavy))
    light = at_image_size(heavy, image_size)
    threshold, escalated_N = _threshold(light, x, escalation)
    cascade = Cascade(light, heavy, threshold)
    overhead = [_overhead(cascade, x, escalated_N, batch, rounds) for batch in batch_sizes]
    cascade.reset_ledger()
    speed = [one for batch in batch_sizes for one in _speed(cascade, x, batch, rounds)]
    return {
        "machine": machine.describe(),
        "threads": torch.get_num_threads(),
        "model": model,
        "image_size": image_size,
        "images": images,
        "rounds": rounds,
        "escalation": cascade.ledger.escalation,
        "charged": cascade.ledger.charged,
        "overhead": overhead,
        "speed": speed,
    }


def _threshold(
    light: torch.nn.Module, x: torch.Tensor, escalation: float
) -> tuple[float, torch.Tensor]:
    """A threshold that makes the share escalate, and which images are below it, bool [N]."""
    confidence_N = torch.tensor(priors(light(x))[1][MAX_PROBABILITY])
    below = round(escalation * len(x))
    ascending = np.concatenate([[-1.0], np.sort(confidence_N.numpy().astype(np.float64)), [2.0]])
    threshold = float(ascending[below : below + 2].mean())
    return threshold, confidence_N < threshold


def _overhead(
    cascade: Cascade, x: torch.Tensor, escalated_N: torch.Tensor, batch: int, rounds: int
) -> dict:
    """The cascade over its passes alone, which know beforehand what escalates."""
    pieces = x.split(batch)
    compacted = [piece[rows] for piece, rows in zip(pieces, escalated_N.split(batch), strict=True)]

    def bare() -> None:
        for piece, escalated in zip(pieces, compacted, strict=True):
            cascade.light(piece)
            if len(escalated):
                cascade.heavy(escalated)

    def ours() -> None:
        for piece in pieces:
            cascade(piece)

    runs = {BARE_PASSES: bare, CASCADE: ours}
    times = interleaved(runs, rounds=rounds, clock=machine.clock(x.device))
    return {
        "batch": batch,
        "bare_seconds": list(times[BARE_PASSES].seconds),
        "cascade_seconds": list(times[CASCADE].seconds),
        "over_bare": times[CASCADE].over(times[BARE_PASSES])._asdict(),
    }


def _speed(cascade: Cascade, x: torch.Tensor, batch: int, rounds: int) -> list[dict]:
    """Images a second by the wall's clock, and how long a caller waits.

    A caller waits for a batch, or for one image of a server that has as many callers as a batch has
    images.
    """
    with _serving(cascade, batch) as (serve, server):
        waited = {name: Durations() for name in (HEAVY, LIGHT, CASCADE)}
        runs = {
            name: _batch_by_batch(run, batch, waited[name])
            for name, run in ((HEAVY, cascade.heavy), (LIGHT, cascade.light), (CASCADE, cascade))
        }
        runs[SERVER] = serve
        seconds = {name: [] for name in runs}
        for number in range(rounds + 1):  # the first warms up
            for name, run in runs.items():
                start = time.perf_counter()
                run(x)
                if number:
                    seconds[name].append(time.perf_counter() - start)
        latency = {
            **{name: durations.latency for name, durations in waited.items()},
            SERVER: server.latency,
        }
    return [_row(batch, name, len(x), seconds[name], latency[name]) for name in runs]


def _batch_by_batch(
    run: Callable[[torch.Tensor], object], batch: int, waited: Durations
) -> Callable[[torch.Tensor], None]:
    def through(x: torch.Tensor) -> None:
        for piece in x.split(batch):
            start = time.perf_counter()
            run(piece)
            waited.add(time.perf_counter() - start)

    return through


@contextmanager
def _serving(
    cascade: Cascade, batch: int
) -> Iterator[tuple[Callable[[torch.Tensor], None], Server]]:
    """A server, and a function that sends images to it from ``batch`` callers.

    Each caller sends its next image when it has the answer to the last.
    """
    with (
        Server(cascade, max_batch=batch, max_wait_ms=MAX_WAIT_MS) as server,
        ThreadPoolExecutor(batch) as callers,
    ):

        def ask(image_CHW: torch.Tensor) -> None:
            server.submit(image_CHW).result()

        def ask_for_all(x_NCHW: torch.Tensor) -> None:
            list(callers.map(ask, x_NCHW))

        yield ask_for_all, server


def _row(batch: int, name: str, images: int, seconds: list[float], latency: Latency) -> dict:
    return {
        "batch": batch,
        "name": name,
        "images_per_second": images / statistics.median(seconds),
        "slowest": images / max(seconds),
        "fastest": images / min(seconds),
        "p50_ms": 1e3 * latency.p50,
        "p99_ms": 1e3 * latency.p99,
    }


def text(found: dict) -> str:
    """The figures as text."""
    lines = [
        machine.sentence(found["machine"]),
        f"{found['model']}, light expert at {found['image_size']} pixels, float32, "
        f"{found['threads']} torch thread(s); {100 * found['escalation']:.1f} % escalated, "
        f"expected cost {found['charged']:.3f}x; medians of {found['rounds']} interleaved rounds "
        f"of {found['images']} images, in brackets the extremes",
        "\nthe cascade over its two bare passes",
    ]
    for one in found["overhead"]:
        ratio = one["over_bare"]
        lines.append(
            f"  batch {one['batch']:<4} {ratio['median']:.3f}x "
            f"({ratio['min']:.3f} to {ratio['max']:.3f})"
        )
    for batch in dict.fromkeys(one["batch"] for one in found["speed"]):
        lines.append(
            f"\nbatch {batch}: images/s, and milliseconds of a call "
            f"(server: of a request, {batch} caller(s) at a time)"
        )
        rows = {one["name"]: one for one in found["speed"] if one["batch"] == batch}
        for name, one in rows.items():
            over = one["images_per_second"] / rows[HEAVY]["images_per_second"]
            lines.append(
                f"  {name:<8} {one['images_per_second']:8.1f} "
                f"({one['slowest']:.1f} to {one['fastest']:.1f})  {over:.2f}x  "
                f"p50 {one['p50_ms']:8.2f}  p99 {one['p99_ms']:8.2f}"
            )
    return "\n".join(lines)
