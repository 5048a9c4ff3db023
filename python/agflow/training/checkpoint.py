"""A fine-tuning run on disk: one safetensors file, written whole or not at all, from which the run goes on with the same bits."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.utils.data import DataLoader

from agflow._utils.ranks import Ranks
from agflow.errors import CorruptFileError, FileError, InvalidValueError

FORMAT = 1
_WORDS = {
    "model": "the model's weights at the beginning",
    "teacher": "the teacher's weights",
    "trained": "the set of parameters that are not frozen",
    "batches": "the number of batches",
    "ranks": "the number of ranks",
}


@dataclass
class Progress:
    """How far a run has come; loss (summed over images), hits and images are of the epoch under way."""

    epoch: int = 1
    batches: int = 0
    step: int = 0
    loss: float = 0.0
    hits: int = 0
    images: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def add_step(self, batches: int, loss: float, hits: int, images: int) -> None:
        """``loss`` is the mean over ``images``."""
        self.batches += batches
        self.step += 1
        self.loss += loss * images
        self.hits += hits
        self.images += images

    def end_epoch(self, lr: float) -> None:
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": self.loss / self.images,
                "accuracy": self.hits / self.images,
                "lr": lr,
            }
        )
        self.epoch, self.batches, self.loss, self.hits, self.images = self.epoch + 1, 0, 0.0, 0, 0


class Replay:
    """A loader's epochs, and the torch generators behind them and behind dropout, which can be put back to where a run stood.

    Batches must come from torch's generators alone: the global one of the device and of the CPU, and those that the
    loader and its samplers hold. A sampler with ``set_epoch`` is told the epoch.
    """

    def __init__(self, loader: Iterable, device: torch.device):
        self._loader, self._device, self._generators = loader, device, generators_of(loader)
        self._begin = self._epoch = self.generators()
        self._first_batch = torch.zeros(32, dtype=torch.uint8)
        self._resumed: dict[str, torch.Tensor] | None = None

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """The beginning of a run (see :func:`seeded`)."""
        with seeded(seed, self._device):
            self._begin = self.generators()
            yield

    def epoch(self, number: int, done: int = 0) -> Iterator:
        """The batches of epoch ``number`` (from 1) after the ``done`` first ones."""
        if self._resumed is not None:
            self._set(_under("epoch", self._resumed))
        batches = self._batches(number)
        for _ in range(done):
            next(batches)
        if self._resumed is not None:
            self._set(_under("now", self._resumed))
            self._resumed = None
        for position, batch in enumerate(batches, done):
            if number == 1 and position == 0:
                self._first_batch = _digest(batch)
            yield batch

    def state(self) -> dict[str, torch.Tensor]:
        """What :meth:`restore` needs on this rank, at this point between two batches or epochs."""
        states = {"begin": self._begin, "epoch": self._epoch, "now": self.generators()}
        return {
            "first_batch": self._first_batch,
            **{
                f"{when}.{name}": state
                for when, named in states.items()
                for name, state in named.items()
            },
        }

    def restore(self, state: dict[str, torch.Tensor], *, in_epoch: bool) -> bool:
        """Go on from ``state``: False, and nothing is changed for good, when the loader's first batch is not what it was then."""
        now = self.generators()
        self._set(_under("begin", state))
        same = torch.equal(_digest(next(self._batches(1))), state["first_batch"])
        if not same:
            self._set(now)
            return False
        self._begin, self._first_batch = _under("begin", state), state["first_batch"]
        self._set(_under("now", state))
        self._resumed = state if in_epoch else None
        return True

    def generators(self) -> dict[str, torch.Tensor]:
        """State of every generator, uint8."""
        states = {
            "cpu": torch.get_rng_state(),
            **{f"loader{i}": generator.get_state() for i, generator in enumerate(self._generators)},
        }
        return states | (
            {"cuda": torch.cuda.get_rng_state(self._device)} if self._device.type == "cuda" else {}
        )

    def _set(self, states: dict[str, torch.Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        for i, generator in enumerate(self._generators):
            generator.set_state(states[f"loader{i}"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)

    def _batches(self, number: int) -> Iterator:
        for sampler in (
            getattr(self._loader, "sampler", None),
            getattr(self._loader, "batch_sampler", None),
        ):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(number - 1)
        self._epoch = self.generators()
        if isinstance(
            self._loader, DataLoader
        ):  # one draw that nothing uses: a seed keeps the bits it had when an epoch made two iterators
            torch.empty((), dtype=torch.int64).random_(generator=self._loader.generator)
        return iter(self._loader)


class Checkpoint:
    """Keeps a run in the file ``path`` (rank 0 writes, all ranks read), and takes it up from there.

    Parameters
    ----------
    run : what must be the same when the run is taken up: arguments, and digests of what is too large to keep; JSON-ready
    """

    def __init__(
        self,
        path: str | os.PathLike,
        run: dict[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        replay: Replay,
        ranks: Ranks,
    ):
        self.path, self._run = pathlib.Path(path), {**run, "ranks": ranks.size}
        self._model, self._optimizer, self._replay, self._ranks = model, optimizer, replay, ranks

    def save(self, progress: Progress) -> None:
        """Call it on all ranks.

        Raises
        ------
        FileError
            The file cannot be written; an older checkpoint of that name is still there.
        """
        states = self._ranks.gather(safetensors.torch.save(self._replay.state()))
        if self._ranks.rank:
            return
        tensors = {f"model.{name}": tensor for name, tensor in named_tensors(self._model)}
        for index, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        for rank, raw in enumerate(states):
            tensors |= {
                f"rank.{rank}.{name}": state for name, state in safetensors.torch.load(raw).items()
            }
        write(self.path, {"run": self._run, "progress": asdict(progress)}, tensors)

    def resume(self) -> Progress:
        """Put model, optimizer and generators where the file left them; a new run where there is no file.

        Raises
        ------
        FileError, CorruptFileError
            The file cannot be read, is damaged or is no checkpoint.
        InvalidValueError
            It is of a run with other arguments, another model or other data; the message names the first difference.
        """
        content, tensors = read(self.path) if self.path.exists() else ({}, {})
        self._ranks.agree(checkpoint=content.get("progress"))
        if not content:
            return Progress()
        for name, now in self._run.items():
            then = content["run"].get(name)
            if then != now:
                raise self._other_run(
                    f"{_WORDS.get(name, name)}: {_short(then)} then, {_short(now)} now"
                )
        if not self._replay.restore(
            _under(f"rank.{self._ranks.rank}", tensors), in_epoch=content["progress"]["batches"] > 0
        ):
            raise self._other_run(
                "the loader's first batch has other images, another order or size, or an augmentation that torch's generators do not decide"
            )
        with torch.no_grad():
            for name, tensor in named_tensors(self._model):
                tensor.copy_(tensors[f"model.{name}"])
        state = self._optimizer.state_dict()
        for name, value in _under("optimizer", tensors).items():
            index, _, name = name.partition(".")
            state["state"].setdefault(int(index), {})[name] = value
        self._optimizer.load_state_dict(state)
        return Progress(**content["progress"])

    def _other_run(self, difference: str) -> InvalidValueError:
        return InvalidValueError(
            f"checkpoint {self.path} is of another run ({difference}): repeat that one, with the model as it was before it, "
            "or name another checkpoint"
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, and put those of the CPU and ``device`` back on exit."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def generators_of(loader: Iterable) -> list[torch.Generator]:
    """The generators that a DataLoader and its samplers hold, each once."""
    holders = [loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler"))]
    holders.append(getattr(holders[2], "sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    return list(
        {
            id(generator): generator
            for generator in found
            if isinstance(generator, torch.Generator)
        }.values()
    )


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, each once however many names it has."""
    return itertools.chain(model.named_parameters(), model.named_buffers())


def digest_of(model: nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of the model's tensors."""
    return _hash(dict(named_tensors(model))).hexdigest()


def write(path: pathlib.Path, content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write JSON-ready ``content`` and ``tensors`` with a checksum over both; FileError when that fails, with the old file still there."""
    text = json.dumps({"format": FORMAT, **content})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"agflow.checkpoint": text, "sha256": _hash(tensors, text).hexdigest()}
    unfinished = path.with_name(
        f".{path.name}.unfinished"
    )  # the same name every time: what a killed run leaves is overwritten
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, unfinished, metadata)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise FileError(
            f"checkpoint {path} was not written ({error}): choose a writable folder with space"
        ) from error


def read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What :func:`write` wrote; FileError or CorruptFileError otherwise."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        text = metadata["agflow.checkpoint"]
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise CorruptFileError(
                f"checkpoint {path} is of another format than {FORMAT}: continue with the agflow that wrote it, or delete it to begin anew"
            )
    except OSError as error:
        raise FileError(f"checkpoint {path} cannot be read ({error}): check its rights") from error
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, CorruptFileError):
            raise
        raise CorruptFileError(
            f"{path} is damaged or no checkpoint ({type(error).__name__}: {error}): "
            "delete it to begin anew, or name another file"
        ) from error
    if _hash(tensors, text).hexdigest() != metadata.get("sha256"):
        raise CorruptFileError(
            f"checkpoint {path} is damaged: its checksum does not hold; delete it to begin anew"
        )
    return content, tensors


def _hash(tensors: dict[str, torch.Tensor], text: str = ""):
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest


def _digest(batch) -> torch.Tensor:
    """SHA-256 of a batch's images, labels and, where it brings them, logits, uint8 [32]."""
    parts = dict(zip(("images", "labels", "logits"), batch, strict=False))
    return torch.frombuffer(bytearray(_hash(parts).digest()), dtype=torch.uint8)


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name[len(prefix) + 1 :]: tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)
