"""``agflow bench calibration``: time and memory of a calibration over its bare passes.

Weights and images are random: neither matters to the cost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow.bench import machine, passes
from agflow.calibration.calibration import calibrate
from agflow.calibration.hooks import capture
from agflow.calibration.loss import per_image_loss
from agflow.calibration.session import statistics_session
from agflow.calibration.sink import StatisticsSink
from agflow.errors import InvalidValueError
from agflow.evaluation.timing import Timing, interleaved
from agflow.models import adapter_for
from agflow.pruning.scoring import score

Batch = tuple[torch.Tensor, torch.Tensor]

OURS = "agflow"
BARE = "bare step"
FROZEN = "bare step, frozen weights"
TORCH_PRUNING = "torch-pruning GroupTaylor"


def measure(
    *,
    model: str = default("bench_calibration", "model"),
    batch_size: int = default("bench_calibration", "batch_size"),
    batches: int = default("bench_calibration", "batches"),
    rounds: int = default("bench_calibration", "rounds"),
) -> dict:
    """Measure a calibration beside the bare forward and backward pass and torch-pruning's scores.

    Parameters
    ----------
    model : name of a timm VisionTransformer
    batches : of the whole calibration

    Returns
    -------
    figures ready for JSON: CPU seconds with one torch thread, memory in bytes

    Raises
    ------
    InvalidValueError
        timm has no such model; fewer than one round, batch or image.
    """
    if min(rounds, batches, batch_size) < 1:
        raise InvalidValueError(
            f"rounds is {rounds}, batches {batches} and batch_size {batch_size}, expected whole "
            "numbers from 1"
        )
    import timm

    if not timm.is_model(model):
        raise InvalidValueError(f"timm has no model {model!r}: see timm.list_models('*vit*')")
    vit, batch = build(model), images(model, batch_size)
    with passes.torch_threads(1):  # the CPU time of more threads counts their waiting too
        with measuring(build(model)) as measured_step:
            step = interleaved(
                {
                    BARE: lambda: bare(vit, [batch]),
                    FROZEN: lambda: bare_frozen(vit, [batch]),
                    OURS: lambda: measured_step(batch),
                },
                rounds=rounds,
                clock=time.process_time,
            )
        whole = interleaved(
            {
                name: (lambda run=run: run(vit, [batch] * batches))
                for name, run in contenders().items()
            },
            rounds=max(1, rounds // 2),
            clock=time.process_time,
        )
    return {
        "machine": machine.describe(),
        "model": model,
        "batch_size": batch_size,
        "batches": batches,
        "rounds": rounds,
        "step": _table(step, BARE),
        "whole": _table(whole, BARE),
        "peak_memory": {name: _peak_of(model, batch_size, name) for name in (BARE, FROZEN, OURS)},
    }


def contenders() -> dict[str, Callable[[nn.Module, list[Batch]], object]]:
    """Ways from images to scores, and the bare steps beside them."""
    found: dict[str, Callable[[nn.Module, list[Batch]], object]] = {BARE: bare, OURS: ours}
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        return found
    return {**found, TORCH_PRUNING: group_taylor}


def build(name: str) -> nn.Module:
    """A timm model with random weights, the same at every call."""
    import timm

    torch.manual_seed(0)
    return timm.create_model(name).eval()


def images(name: str, batch_size: int) -> Batch:
    """Random images of the size that a timm model takes, and labels."""
    import timm

    generator = torch.Generator().manual_seed(0)
    known = timm.get_pretrained_cfg(name)
    size = known.input_size if known else (3, 224, 224)
    x = torch.randn(batch_size, *size, generator=generator)
    return x, torch.randint(1000, (batch_size,), generator=generator)


def bare(model: nn.Module, batches: list[Batch]) -> None:
    """Compute what a training step does: gradients of all weights."""
    for x, labels in batches:
        per_image_loss(model(x), labels).backward()
    model.zero_grad(set_to_none=True)


def bare_frozen(model: nn.Module, batches: list[Batch]) -> None:
    """Compute gradients of the activations alone, as a calibration that measures nothing."""
    model.requires_grad_(False)
    try:
        for x, labels in batches:
            per_image_loss(model(x.requires_grad_()), labels).backward()
            x.requires_grad_(False).grad = None
    finally:
        model.requires_grad_(True)


@contextmanager
def measuring(model: nn.Module) -> Iterator[Callable[[Batch], None]]:
    """A step of a running calibration: all sums of every MLP channel and attention head."""
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind in ("mlp", "heads")]
    with statistics_session(passes.NO_MODEL, layers) as session:
        sink = StatisticsSink(session, layers, "refuse", None)

        def step(batch: Batch) -> None:
            per_image_loss(model(batch[0]), batch[1]).backward()
            sink.end_batch()

        with capture(model, layers, sink.take):
            yield step


def ours(model: nn.Module, batches: list[Batch]) -> None:
    """Run a whole calibration of every MLP channel and attention head, and score them."""
    score(calibrate(model, batches, batches=len(batches)), "agf")


def group_taylor(model: nn.Module, batches: list[Batch]) -> None:
    """Compute torch-pruning's Taylor scores.

    It takes a dependency graph, gradients of all weights and the importance of every group.
    """
    import torch_pruning

    blocks, head = cast(Any, model.blocks), cast(nn.Module, model.head)
    for block in blocks:
        block.attn.fused_attn = False  # the graph can't be traced through it
    graph = torch_pruning.DependencyGraph().build_dependency(model, batches[0][0][:1])
    for block in blocks:
        block.attn.fused_attn = True
    for x, labels in batches:
        per_image_loss(model(x), labels).backward()
    importance = torch_pruning.importance.GroupTaylorImportance()
    for group in graph.get_all_groups(ignored_layers=[head], root_module_types=[nn.Linear]):
        importance(group)
    model.zero_grad(set_to_none=True)


def _table(times: dict[str, Timing], unit: str) -> list[dict]:
    return [
        {
            "name": name,
            "cpu_seconds": list(t.seconds),
            "median": t.median,
            "over_bare": t.over(times[unit])._asdict(),
        }
        for name, t in times.items()
    ]


def _peak_of(model: str, batch_size: int, name: str) -> int:
    """Peak memory of two steps in a process of its own, above that of the model and its images."""
    request = json.dumps({"model": model, "batch_size": batch_size, "name": name})
    done = subprocess.run(
        [sys.executable, "-m", "agflow.bench.memory", request],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def text(found: dict) -> str:
    """The figures as text."""
    lines = [
        machine.sentence(found["machine"]),
        f"{found['model']}, batch {found['batch_size']}, float32, one torch thread, CPU time; "
        f"medians of {found['rounds']} interleaved rounds, in brackets the least and greatest "
        "ratio of a round",
    ]
    for title, part in {
        "one step": "step",
        f"{found['batches']} batches, scores included": "whole",
    }.items():
        lines.append(f"\n{title}")
        for one in found[part]:
            ratio = one["over_bare"]
            lines.append(
                f"  {one['name']:<28} {one['median']:8.3f} s  {ratio['median']:.3f}x the bare "
                f"step's ({ratio['min']:.3f} to {ratio['max']:.3f})"
            )
    lines.append("\npeak memory of a step, above the model and its images")
    peaks = found["peak_memory"]
    for name, peak in peaks.items():
        lines.append(f"  {name:<28} {peak / 2**20:8.0f} MiB  {peak / peaks[BARE]:.3f}x")
    return "\n".join(lines)
