"""Where models compute and in which precision: what every command with a model lets one choose."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow.errors import DeviceError, InvalidValueError

DTYPES = ("float32", "bfloat16")
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Computing:
    """A device, and the precision of the models' products.

    Weights stay float32, on every device, and so do all sums outside of the models: bfloat16 is
    torch's automatic mixed precision. What is trained or pruned in it is written as float32.

    Attributes
    ----------
    device : as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``
    dtype : ``"float32"`` or ``"bfloat16"``

    Raises
    ------
    DeviceError
        torch does not know the device, or cannot compute on it here.
    InvalidValueError
        Another dtype.

    Examples
    --------
    >>> from agflow._utils.computing import Computing
    >>> str(Computing("cpu", "bfloat16"))
    'on cpu in bfloat16'
    """

    device: str = default("common", "device")
    dtype: str = default("common", "dtype")

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise InvalidValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        try:
            # A device may have a name and not be there, or hold no values, as "meta" does.
            torch.ones(1, device=self.device).cpu()
        except Exception as error:
            raise DeviceError(
                f"models cannot compute on device {self.device!r} "
                f"({str(error).splitlines()[0]}): expected cpu, or a device that torch sees"
            ) from error

    @classmethod
    def of_process(cls, device: str | None, dtype: str | None) -> Computing:
        """What a command was asked for; the processes of torchrun take a CUDA device each."""
        rank = os.environ.get("LOCAL_RANK")
        if device == "cuda" and rank is not None:
            device = f"cuda:{rank}"
        return cls(device or cls.device, dtype or cls.dtype)

    def move(self, model: Model) -> Model:
        """Move a model to the device.

        Raises
        ------
        DeviceError
            It does not fit there.
        """
        try:
            return model.to(self.device)
        except (RuntimeError, NotImplementedError) as error:
            raise DeviceError(
                f"the model cannot be moved to device {self.device!r} "
                f"({str(error).splitlines()[0]}): free its memory, or compute on another"
            ) from error

    def precision(self) -> AbstractContextManager:
        """The context in which models compute in the dtype.

        Weights are cast anew in every pass: those cast once would outlive a step of training.
        """
        if self.dtype == "float32":
            return nullcontext()
        kind = torch.device(self.device).type
        return torch.autocast(kind, getattr(torch, self.dtype), cache_enabled=False)

    def __str__(self) -> str:
        return f"on {self.device} in {self.dtype}"
