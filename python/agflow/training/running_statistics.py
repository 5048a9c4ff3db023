"""Running statistics of norms over the batch, which forward passes of a training change.

Shape suffixes: C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from agflow._utils.modes import preserve_training_mode


class RunningStatistics:
    """The running means and variances [C] of a model's norms, and when batches count for them.

    In training mode such a norm takes mean and variance of the batch, and moves its running ones.
    One image says nothing of a variance over images: a batch of one (the last of an epoch may be)
    takes the running statistics, and moves none. ``SyncBatchNorm`` sees the images of all ranks.

    Parameters
    ----------
    model : may have none, as Vision Transformers

    Attributes
    ----------
    tensors : means and variances of all norms
    """

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self._norms = [
            module
            for module in modules
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        ]
        named = ("running_mean", "running_var")
        buffers = [getattr(module, name, None) for module in modules for name in named]
        self.tensors = [buffer for buffer in buffers if isinstance(buffer, torch.Tensor)]

    @contextmanager
    def for_batch_of(self, images: int) -> Iterator[None]:
        """Prepare the norms for a forward pass in training mode over that many images."""
        if images > 1:
            yield
            return
        with preserve_training_mode(*self._norms):
            for norm in self._norms:
                norm.eval()
            yield

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Give the norms the statistics from before, where an exception ends the step."""
        before = [tensor.clone() for tensor in self.tensors]
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for tensor, value in zip(self.tensors, before, strict=True):
                    tensor.copy_(value)
            raise
