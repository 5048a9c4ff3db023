"""Whether a checkpoint with a right checksum, which anybody can forge, is one of this run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from agflow.training.history import HELD_OUT, MEASURES

_OPTIMIZER = re.compile(r"(\d{1,9})\.(step|exp_avg|exp_avg_sq)")
_COUNTS = ("epoch", "batches", "step", "images")
_HISTORY = ("epoch", "loss", "lr")


def check_progress(progress: Mapping[str, Any], batches: int, *, held_out: bool = False) -> None:
    """Check the fields of a run's progress.

    Parameters
    ----------
    batches : of an epoch
    held_out : whether its epochs were measured on held-out images

    Raises
    ------
    ValueError
        A value is one that no run of so many batches has.
    """
    for name in _COUNTS:
        if type(progress[name]) is not int or not 0 <= progress[name] < 1 << 62:
            raise ValueError(f"{name} is {progress[name]!r:.40}")
    if progress["epoch"] < 1 or progress["batches"] > batches:
        raise ValueError(f"epoch {progress['epoch']} after {progress['batches']} batches")
    if progress["batches"] and not progress["images"]:
        raise ValueError("an epoch under way without images")
    history = progress["history"]
    known = [
        {*_HISTORY, measure, *([HELD_OUT + measure] if held_out else [])} for measure in MEASURES
    ]
    if not isinstance(history, list) or len(history) != progress["epoch"] - 1:
        raise ValueError("the history is not one of so many epochs")
    for entry in history:
        if not isinstance(entry, dict) or set(entry) not in known:
            raise ValueError("an epoch of the history has other values")
    sums = progress["loss"], progress["correct"]
    for number in (*sums, *(value for entry in history for value in entry.values())):
        if type(number) not in (int, float) or not math.isfinite(number):
            raise ValueError(f"a loss, an accuracy or a learning rate is {number!r:.40}")


def check_same(
    kind: str, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Check names, shapes and types of tensors.

    Raises
    ------
    ValueError
        They differ; the message has ``kind`` and the first name.
    """
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name), expected.get(name)
        if one is None or other is None:
            raise ValueError(f"{kind} {name} is {'missing' if one is None else 'unknown'}")
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ValueError(
                f"{kind} {name} is {one.dtype} {list(one.shape)}, expected {other.dtype} "
                f"{list(other.shape)}"
            )


def check_optimizer(
    found: Mapping[str, torch.Tensor], parameters: list[torch.nn.Parameter]
) -> None:
    """Check the state of AdamW, by ``index.name``, against its parameters.

    Raises
    ------
    ValueError
        A tensor is missing, unknown or of another shape or type.
    """
    indices = set()
    for name in found:
        match = _OPTIMIZER.fullmatch(name)
        if match is None or int(match[1]) >= len(parameters):
            raise ValueError(f"the optimizer's {name} is unknown")
        indices.add(int(match[1]))
    expected = {}
    for index in indices:
        like = parameters[index].detach()
        expected |= {f"{index}.step": torch.zeros(())}
        expected |= {f"{index}.exp_avg": like, f"{index}.exp_avg_sq": like}
    check_same("the optimizer's", found, expected)


def check_generators(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Check the states of torch's generators, and what else a rank keeps.

    Raises
    ------
    ValueError, RuntimeError
        One is missing, unknown or no state.
    """
    check_same("the generator's", found, expected)
    for name, state in found.items():
        if name.endswith(".cuda"):
            torch.Generator("cuda").set_state(state)
        elif "." in name:
            torch.Generator().set_state(state)
