"""``agflow bench core``: the statistics pass, top-k and one bridge call, each beside its peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from agflow._utils.defaults import default
from agflow.bench import machine, passes
from agflow.errors import InvalidValueError
from agflow.evaluation.timing import Timing, interleaved
from agflow.functional import top_k, utility

SHAPES = ((12_608, 3072), (3_152, 768))
"""ViT-Base-large and ViT-Tiny MLP activations: 64 and 16 images of 197 tokens."""

MAPS = ((64, 256, 56, 56), (64, 512, 14, 14))
"""Maps of two stages of a ResNet-50, of 64 images."""

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def measure(
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    maps: Sequence[tuple[int, int, int, int]] = MAPS,
    dtypes: Sequence[torch.dtype] = DTYPES,
    threads: Sequence[int] = default("bench_core", "threads"),
    rounds: int = default("bench_core", "rounds"),
    scores: int = 10_000_000,
    seed: int = default("common", "seed"),
) -> dict:
    """Measure the statistics pass, top-k and one call across the bridge beside their peers.

    Parameters
    ----------
    shapes : (rows, channels) of Y and G; the first in every dtype, the others in float32
    maps : (images, channels, height, width) of Y and G, in float32 and both memory layouts
    threads : numbers of threads, one after the other
    rounds : interleaved rounds of every measurement
    scores : length of the array that top-k selects a quarter of

    Returns
    -------
    figures ready for JSON: seconds, and ratios in units of agflow's time

    Raises
    ------
    InvalidValueError
        Fewer than one round or thread.
    """
    if rounds < 1 or any(count < 1 for count in threads):
        raise InvalidValueError(
            f"rounds is {rounds} and threads {list(threads)}, expected whole numbers from 1"
        )
    return {
        "machine": machine.describe(),
        "rounds": rounds,
        "seed": seed,
        "passes": [
            entry
            for shape, dtype in _inputs(shapes, dtypes)
            for count in threads
            for entry in _passes(shape, dtype, count, rounds, seed)
        ],
        "maps": [
            _maps(shape, layout, count, rounds, seed)
            for shape in maps
            for layout in LAYOUTS
            for count in threads
        ],
        "top_k": [_top_k(scores, count, rounds, seed) for count in threads],
        "bridge": _bridge(rounds),
    }


def _inputs(
    shapes: Sequence[tuple[int, int]], dtypes: Sequence[torch.dtype]
) -> list[tuple[tuple[int, int], torch.dtype]]:
    """Compiling the peers takes longest, so not every shape is measured in every type."""
    return [
        *((shapes[0], dtype) for dtype in dtypes),
        *((shape, torch.float32) for shape in shapes[1:]),
    ]


def _passes(
    shape: tuple[int, int], dtype: torch.dtype, threads: int, rounds: int, seed: int
) -> Iterator[dict]:
    y_RC, g_RC = _tensors(shape, dtype, seed)
    about = {
        "rows": shape[0],
        "channels": shape[1],
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
    }
    with passes.torch_threads(threads):
        read = passes.reading(y_RC, g_RC, threads)
        contenders = passes.agf(y_RC, g_RC, threads)
        times = interleaved(contenders | read, rounds=rounds)
        exact_C = passes.row_by_row(y_RC, g_RC)
        errors = {name: _error(call(), exact_C) for name, call in contenders.items()}
        errors[passes.OURS] = _error(utility(y_RC, g_RC), exact_C / len(y_RC))
        yield {"pass": "agf", **about, "contenders": _table(times, errors)}
        with passes.all_sums(y_RC, g_RC, threads) as contenders:
            yield {
                "pass": "all sums",
                **about,
                "contenders": _table(interleaved(contenders | read, rounds=rounds), {}),
            }


def _maps(
    shape: tuple[int, int, int, int], layout: str, threads: int, rounds: int, seed: int
) -> dict:
    y_BCHW, g_BCHW = (
        x.contiguous(memory_format=LAYOUTS[layout]) for x in _tensors(shape, torch.float32, seed)
    )
    with passes.torch_threads(threads):
        contenders = passes.agf_of_maps(y_BCHW, g_BCHW, threads)
        read = passes.reading(y_BCHW, g_BCHW, threads)
        times = interleaved(contenders | read, rounds=rounds)
        exact_C = passes.row_by_row(*(x.movedim(1, -1).flatten(0, 2) for x in (y_BCHW, g_BCHW)))
        errors = {name: _error(call(), exact_C) for name, call in contenders.items()}
    rows = y_BCHW[:, 0].numel()
    errors[passes.OURS] = _error(utility(y_BCHW, g_BCHW, axis=1), exact_C / rows)
    return {
        "shape": list(shape),
        "layout": layout,
        "threads": threads,
        "contenders": _table(times, errors),
    }


def _tensors(
    shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations as behind a GELU, gradients normal and small."""
    generator = torch.Generator().manual_seed(seed)
    y_RC = torch.nn.functional.gelu(torch.randn(shape, generator=generator))
    return y_RC.to(dtype), (1e-2 * torch.randn(shape, generator=generator)).to(dtype)


def _error(found, exact_C: np.ndarray) -> float:
    """Relative error of the worst channel."""
    return float(
        np.max(
            np.abs(
                np.asarray(found.double() if isinstance(found, torch.Tensor) else found) - exact_C
            )
            / exact_C
        )
    )


def _table(times: dict[str, Timing], errors: dict[str, float]) -> list[dict]:
    return [
        {
            "name": name,
            "seconds": list(t.seconds),
            "median": t.median,
            "over_agflow": t.over(times[passes.OURS])._asdict(),
            **({"relative_error": errors[name]} if name in errors else {}),
        }
        for name, t in times.items()
    ]


def _top_k(n: int, threads: int, rounds: int, seed: int) -> dict:
    """The n/4 largest of n scores, as a mask (agflow) or as indices (the others)."""
    scores = np.random.default_rng(seed).standard_exponential(n)
    tensor, k = torch.from_numpy(scores), n // 4
    with passes.torch_threads(threads):
        times = interleaved(
            {
                passes.OURS: lambda: top_k(scores, k, workers=threads),
                "numpy argpartition": lambda: np.argpartition(scores, n - k)[n - k :],
                "numpy partition, compared": lambda: scores >= np.partition(scores, n - k)[n - k],
                "torch.topk": lambda: torch.topk(tensor, k, sorted=False),
            },
            rounds=max(3, rounds // 3),
        )
    return {"scores": n, "k": k, "threads": threads, "contenders": _table(times, {})}


def _bridge(rounds: int) -> dict:
    """One statistics_add of two tensors so small that the kernel takes next to nothing."""
    with passes.statistics_add(torch.randn(4, 8), torch.randn(4, 8), threads=1) as add:
        times = interleaved({"statistics_add": add}, rounds=rounds)["statistics_add"]
    return {"seconds": list(times.seconds), "median": times.median}


def text(found: dict) -> str:
    """The figures as text, one table a pass."""
    lines = [
        machine.sentence(found["machine"]),
        f"medians of {found['rounds']} interleaved rounds; "
        "in brackets the least and greatest ratio of a round",
    ]
    for entry in found["passes"]:
        lines.append(
            f"\n{entry['pass']}, {entry['dtype']}, {entry['rows']} x {entry['channels']}, "
            f"{entry['threads']} thread(s)"
        )
        lines += _lines(entry["contenders"])
    for entry in found["maps"]:
        lines.append(
            f"\nagf of maps, float32, {entry['shape']}, {entry['layout']}, "
            f"{entry['threads']} thread(s)"
        )
        lines += _lines(entry["contenders"])
    for entry in found["top_k"]:
        lines.append(
            f"\ntop {entry['k']} of {entry['scores']} float64 scores, {entry['threads']} thread(s)"
        )
        lines += _lines(entry["contenders"])
    microseconds = [1e6 * seconds for seconds in found["bridge"]["seconds"]]
    lines.append(
        f"\none call across the bridge, two tensors: {1e6 * found['bridge']['median']:.1f} µs "
        f"({min(microseconds):.1f} to {max(microseconds):.1f})"
    )
    return "\n".join(lines)


def _lines(contenders: list[dict]) -> Iterator[str]:
    for one in contenders:
        ratio = one["over_agflow"]
        error = f"   relative error {one['relative_error']:.0e}" if "relative_error" in one else ""
        yield (
            f"  {one['name']:<28} {1e3 * one['median']:9.2f} ms  "
            f"{ratio['median']:6.2f}x agflow's time "
            f"({ratio['min']:.2f} to {ratio['max']:.2f}){error}"
        )
