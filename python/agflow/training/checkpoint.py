"""State of a fine-tuning run, kept in one file from which it goes on with the same bits."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import nn

from agflow._utils.files import check_file
from agflow._utils.ranks import Ranks
from agflow.errors import CorruptFileError, InvalidValueError
from agflow.training import checkpoint_file
from agflow.training.checkpoint_check import (
    check_generators,
    check_optimizer,
    check_progress,
    check_same,
)
from agflow.training.digests import named_tensors, tensors_under
from agflow.training.history import ACCURACY
from agflow.training.options import Checkpointing
from agflow.training.replay import Replay

_DESCRIPTIONS = {
    "model": "the model's weights at the beginning",
    "teacher": "the teacher's weights",
    "trained": "the set of parameters that are not frozen",
    "batches": "the number of batches",
    "ranks": "the number of ranks",
    "held_out": "the held-out images",
}
_OTHER_BATCH = (
    "the loader's first batch has other images, another order or size, or an augmentation that "
    "torch's generators do not decide"
)


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    epoch : under way, from 1
    batches, loss, correct, images : of the epoch under way, the loss summed over images; where a
        model learns features, ``correct`` is the sum of their cosines
    step : optimizer steps of the whole run
    history : one dict per finished epoch
    """

    epoch: int = 1
    batches: int = 0
    step: int = 0
    loss: float = 0.0
    correct: float = 0
    images: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def add_step(self, batches: int, loss: float, correct: float, images: int) -> None:
        """Count a step of ``batches`` batches; ``loss`` is the mean over ``images``."""
        self.batches += batches
        self.step += 1
        self.loss += loss * images
        self.correct += correct
        self.images += images

    def end_epoch(self, lr: float, measure: str = ACCURACY) -> None:
        """Add the epoch's means to the history and go to the next one.

        Parameters
        ----------
        lr : at its end
        measure : what ``correct`` is the sum of, in the history
        """
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": self.loss / self.images,
                measure: self.correct / self.images,
                "lr": lr,
            }
        )
        self.epoch += 1
        self.batches, self.loss, self.correct, self.images = 0, 0.0, 0, 0

    def as_dict(self) -> dict[str, Any]:
        """The progress as checkpoint files have it."""
        return {
            "epoch": self.epoch,
            "batches": self.batches,
            "step": self.step,
            "loss": self.loss,
            "correct": self.correct,
            "images": self.images,
            "history": self.history,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Progress:
        """The progress of :meth:`as_dict`."""
        others = dict(content)
        # the name until format 3
        correct = others.pop("hits" if "hits" in others else "correct")
        return cls(correct=correct, **others)


class Checkpoint:
    """Keeps a run in a file (rank 0 writes, all ranks read), and restores it from there.

    Parameters
    ----------
    run : what must be the same when the run is resumed: arguments, and digests of what is too large
        to keep; JSON-ready
    best : the best weights so far by name, where held-out images choose them
    """

    def __init__(
        self,
        options: Checkpointing,
        run: dict[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        replay: Replay,
        ranks: Ranks,
        best: dict[str, torch.Tensor],
    ):
        check_file(options.path, "checkpoint")  # before the training rather than after it
        self.path, self._every = pathlib.Path(options.path), options.every
        self._run = {**run, "ranks": ranks.size}
        self._model, self._optimizer, self._replay, self._ranks = model, optimizer, replay, ranks
        self._best = best

    def save_if_due(self, progress: Progress) -> None:
        """Save after every so many steps; call it on all ranks."""
        if progress.step % self._every == 0:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Write the file; call it on all ranks.

        Raises
        ------
        FileError
            The file cannot be written; an older checkpoint of that name is still there.
        """
        states = self._ranks.gather(safetensors.torch.save(self._replay.state()))
        if self._ranks.rank:
            return
        tensors = {f"model.{name}": tensor for name, tensor in named_tensors(self._model)}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for index, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        for rank, raw in enumerate(states):
            for name, state in safetensors.torch.load(raw).items():
                tensors[f"rank.{rank}.{name}"] = state
        content = {"run": self._run, "progress": progress.as_dict()}
        checkpoint_file.write(self.path, content, tensors)

    def resume(self) -> Progress:
        """Restore model, optimizer and generators from the file; a new run where there is none.

        Raises
        ------
        FileError, CorruptFileError
            The file cannot be read, is damaged or is no checkpoint.
        InvalidValueError
            It is of a run with other arguments, another model or other data; the message names the
            first difference.
        """
        content, tensors = checkpoint_file.read(self.path) if self.path.exists() else ({}, {})
        self._ranks.agree(checkpoint=content.get("progress"))
        if not content:
            return Progress()
        self._check_same_run(content["run"])
        rank_state = tensors_under(f"rank.{self._ranks.rank}", tensors)
        if _loaders(rank_state) != _loaders(self._replay.state()):
            raise self._other_run(_OTHER_BATCH)
        self._check_forged(content, tensors)
        if not self._replay.restore(rank_state, in_epoch=content["progress"]["batches"] > 0):
            raise self._other_run(_OTHER_BATCH)
        with torch.no_grad():
            for name, tensor in named_tensors(self._model):
                tensor.copy_(tensors[f"model.{name}"])
            for name, tensor in self._best.items():
                tensor.copy_(tensors[f"best.{name}"])
        state = self._optimizer.state_dict()
        for name, value in tensors_under("optimizer", tensors).items():
            index, _, name = name.partition(".")
            state["state"].setdefault(int(index), {})[name] = value
        self._optimizer.load_state_dict(state)
        return Progress.from_dict(content["progress"])

    def _check_forged(self, content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Check all that is restored, before anything is."""
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        try:
            progress = vars(Progress.from_dict(content["progress"]))
            check_progress(progress, self._run["batches"], held_out=bool(self._best))
            check_same("the best", tensors_under("best", tensors), self._best)
            check_same(
                "the model's", tensors_under("model", tensors), dict(named_tensors(self._model))
            )
            check_optimizer(tensors_under("optimizer", tensors), parameters)
            rank_state = tensors_under(f"rank.{self._ranks.rank}", tensors)
            check_generators(rank_state, self._replay.state())
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CorruptFileError(
                f"checkpoint {self.path} is damaged: {reason}; delete it to start again"
            ) from error

    def _check_same_run(self, run_then: dict[str, Any]) -> None:
        for name, now in self._run.items():
            then = run_then.get(name)
            if then != now:
                what = _DESCRIPTIONS.get(name, name)
                raise self._other_run(f"{what}: {_short(then)} then, {_short(now)} now")

    def _other_run(self, difference: str) -> InvalidValueError:
        return InvalidValueError(
            f"checkpoint {self.path} is of another run ({difference}): repeat that one, with the "
            "model as it was before it, or name another checkpoint"
        )


def _loaders(state: dict[str, torch.Tensor]) -> set[str]:
    """Which states of a rank are those of its loader's own generators."""
    return {name for name in state if ".loader" in name}


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)
