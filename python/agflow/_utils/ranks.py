"""Processes that ``torchrun`` started together: checks of agreement, and sums over them."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from agflow.errors import AgflowError, DeviceError, InvalidValueError, from_text


@dataclass(frozen=True)
class Ranks:
    """How many processes train together, and this one's rank; without torchrun 1 and 0."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_process(cls) -> Ranks:
        """Those of the process group; one that torchrun's environment describes is initialised."""
        if not dist.is_available():
            return cls()
        if (
            not dist.is_initialized()
            and {"RANK", "MASTER_ADDR"} <= os.environ.keys()
            and int(os.environ.get("WORLD_SIZE", 1)) > 1
        ):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl"
                if torch.cuda.is_available() and dist.is_nccl_available()
                else "gloo"
            )
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def check_device(self, device: torch.device) -> None:
        """DeviceError when the process group cannot sum tensors of ``device``."""
        if self.size > 1 and f"{device.type}:" not in dist.get_backend_config():
            raise DeviceError(
                f"the model is on {device}, but the process group is of "
                f"{dist.get_backend_config()}: move the model, or choose another backend"
            )

    def gather(self, payload: bytes) -> list[bytes]:
        """Every rank's payload, in rank order, on every rank."""
        if self.size == 1:
            return [payload]
        device = torch.device("cpu" if "cpu:" in dist.get_backend_config() else "cuda")
        lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(payload)], device=device))
        longest = max(int(length) for length in lengths)
        padded = torch.frombuffer(bytearray(payload.ljust(longest, b"\0")), dtype=torch.uint8).to(
            device
        )
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        return [
            bytes(piece[: int(length)].cpu().numpy())
            for piece, length in zip(gathered, lengths, strict=True)
        ]

    def gather_results(self, compute: Callable[[], bytes]) -> list[bytes]:
        """What ``compute`` gives on every rank, in rank order; its error is raised on every rank.

        So no rank waits for one that has failed.
        """
        if self.size == 1:
            return [compute()]
        own_error: AgflowError | None = None
        try:
            payload = b"+" + compute()
        except AgflowError as error:
            own_error = error
            payload = b"-" + f"agflow:{error.code}: {error}".encode()
        gathered = self.gather(payload)
        if own_error is not None:
            raise own_error
        for rank, result in enumerate(gathered):
            if result[:1] == b"-":
                error = from_text(result[1:].decode())
                raise type(error)(f"on rank {rank}: {error}")
        return [result[1:] for result in gathered]

    def agree(self, **values: Any) -> None:
        """Check that all ranks have the same JSON-ready values.

        Raises
        ------
        InvalidValueError
            One has another value, which the message names; raised on every rank.
        """
        first, *others = [
            json.loads(gathered) for gathered in self.gather(json.dumps(values).encode())
        ]
        for rank, other in enumerate(others, 1):
            for name in values:
                if other[name] != first[name]:
                    raise InvalidValueError(
                        f"{name} is {_short(first[name])} on rank 0 and "
                        f"{_short(other[name])} on rank {rank}, expected the same on all: give "
                        "every rank the same arguments, and shard the data with a "
                        "DistributedSampler"
                    )

    def share(self, model: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        if self.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)

    def mean(self, tensors: Sequence[torch.Tensor]) -> None:
        """Average float tensors over the ranks, in place, so that all have the same ones."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        dist.all_reduce(flat)
        means = flat.div_(self.size).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def sum(self, *counts: float) -> list:
        """Sums of every rank's counts, on every rank."""
        of_ranks = map(json.loads, self.gather(json.dumps(counts).encode()))
        return [sum(column) for column in zip(*of_ranks, strict=True)]

    def on_first(self, function: Callable[[], object]) -> None:
        """Call ``function`` on rank 0 alone; an exception there ends every rank.

        Raises
        ------
        Exception
            On rank 0 the function's own.
        InvalidValueError
            On the other ranks, with the exception of rank 0 in the message.
        """
        raised = None
        if self.rank == 0:
            try:
                function()
            except Exception as error:
                raised = error
        reason = self.gather(repr(raised).encode() if raised is not None else b"")[0].decode()
        if raised is not None:
            raise raised
        if reason:
            raise InvalidValueError(f"rank 0 stopped, and with it this one: {reason}")

    def average(
        self, parameters: Iterable[nn.Parameter], loss: torch.Tensor, correct: float, images: int
    ) -> tuple[torch.Tensor, float, int]:
        """Average this step's gradients in place, weighted by the images of each rank.

        Parameters
        ----------
        parameters : their ``.grad`` is the mean over this rank's images
        loss : mean over this rank's images
        correct, images : counts of this rank

        Returns
        -------
        mean loss, correct and images of all ranks
        """
        if self.size == 1:
            return loss, correct, images
        sums = torch.stack(
            [
                loss.detach().double() * images,
                *torch.tensor([correct, images], dtype=torch.float64, device=loss.device),
            ]
        )
        dist.all_reduce(sums)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]).mul_(images)
        dist.all_reduce(flat)
        flat.div_(sums[2].to(flat.dtype))
        for gradient, mean in zip(
            gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))
        return sums[0] / sums[2], float(sums[1]), int(sums[2])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
