"""Epochs of a loader that can be repeated from any batch, with the same random draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.data import DataLoader

from agflow._utils.loaders import as_raised
from agflow.data.batches import Batch, read_batch
from agflow.training.digests import hash_tensors, tensors_under


class Replay:
    """A loader's epochs, and the torch generators that decide its batches and dropout.

    Batches must come from torch's generators alone: the global one of the device and of the CPU,
    and those that the loader and its samplers hold. ``set_epoch`` of a sampler is called.

    Parameters
    ----------
    labelled : whether labels are read
    """

    def __init__(self, loader: Iterable, device: torch.device, *, labelled: bool = True):
        self._read = partial(read_batch, labelled=labelled)
        self._loader, self._device, self._generators = loader, device, generators_of(loader)
        self._begin = self._epoch = self._generator_states()
        self._first_batch = torch.zeros(32, dtype=torch.uint8)
        self._resumed: dict[str, torch.Tensor] | None = None

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Begin a run (see :func:`seeded`)."""
        with seeded(seed, self._device):
            self._begin = self._generator_states()
            yield

    def epoch(self, number: int, done: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` (from 1) after the ``done`` first ones."""
        if self._resumed is not None:
            self._set(tensors_under("epoch", self._resumed))
        batches = self._batches(number)
        for _ in range(done):
            next(batches, None)
        if self._resumed is not None:
            self._set(tensors_under("now", self._resumed))
            self._resumed = None
        for position, batch in enumerate(batches, done):
            if number == 1 and position == 0:
                self._first_batch = _digest(batch)
            yield batch

    def state(self) -> dict[str, torch.Tensor]:
        """What :meth:`restore` needs on this rank, between two batches or epochs."""
        states = {"begin": self._begin, "epoch": self._epoch, "now": self._generator_states()}
        return {
            "first_batch": self._first_batch,
            **{
                f"{when}.{name}": state
                for when, named in states.items()
                for name, state in named.items()
            },
        }

    def restore(self, state: dict[str, torch.Tensor], *, in_epoch: bool) -> bool:
        """Go on from ``state``, in the middle of an epoch or between two.

        Returns
        -------
        False, with the generators as they were, when the loader's first batch is another one
        """
        now = self._generator_states()
        self._set(tensors_under("begin", state))
        first = next(self._batches(1), None)
        same = first is not None and torch.equal(_digest(first), state["first_batch"])
        if not same:
            self._set(now)
            return False
        self._begin, self._first_batch = tensors_under("begin", state), state["first_batch"]
        self._set(tensors_under("now", state))
        self._resumed = state if in_epoch else None
        return True

    def _generator_states(self) -> dict[str, torch.Tensor]:
        """State of every generator, uint8."""
        states = {
            "cpu": torch.get_rng_state(),
            **{f"loader{i}": generator.get_state() for i, generator in enumerate(self._generators)},
        }
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def _set(self, states: dict[str, torch.Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        for i, generator in enumerate(self._generators):
            generator.set_state(states[f"loader{i}"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)

    def _batches(self, number: int) -> Iterator[Batch]:
        for name in ("sampler", "batch_sampler"):
            sampler = getattr(self._loader, name, None)
            if sampler is not None and hasattr(sampler, "set_epoch"):
                sampler.set_epoch(number - 1)
        self._epoch = self._generator_states()
        if isinstance(self._loader, DataLoader):
            # One draw that nothing uses: a seed keeps the bits that it had when an epoch made two
            # iterators.
            torch.empty((), dtype=torch.int64).random_(generator=self._loader.generator)
        return map(self._read, as_raised(self._loader), itertools.count(1))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators; restore those of the CPU and ``device`` on exit."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def generators_of(loader: Iterable) -> list[torch.Generator]:
    """The generators that a DataLoader and its samplers hold, each once."""
    holders = [loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler"))]
    holders.append(getattr(holders[2], "sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _digest(batch: Batch) -> torch.Tensor:
    """SHA-256 of a batch's images, labels and, where it brings them, logits, uint8 [32]."""
    parts = {name: part for name, part in batch._asdict().items() if part is not None}
    return torch.frombuffer(bytearray(hash_tensors(parts).digest()), dtype=torch.uint8)
