"""Where a calibration's hooks send activations and gradients: the session and the dump.

Shape suffixes: R rows (image tokens, or positions of maps), C channels. What is suffixed RC may be
[B, P, C] of maps, B images of P positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.maps import channel_matrix
from agflow.calibration.cuda import device_sums
from agflow.calibration.dump import TensorFolder
from agflow.errors import NonFiniteError
from agflow.models import ChannelGroup


class StatisticsSink:
    """The sink of :func:`agflow.calibration.capture` that adds to a statistics session.

    Attributes
    ----------
    batches : how many are finished
    """

    def __init__(
        self, session: int, layers: list[ChannelGroup], nonfinite: str, folder: TensorFolder | None
    ):
        self.batches = 0
        self._session, self._layers, self._folder = session, layers, folder
        self._skip = nonfinite == "skip"
        self._left_out: set[int] = set()  # indices of the layers that this batch is left out of
        self._times_left_out: Counter[int] = Counter()
        self._on_device: list[tuple[int, int, int, torch.Tensor]] = []
        self._to_dump: list[tuple[int, int, torch.Tensor, torch.Tensor]] = []

    def take(self, index: int, images: int, y_RC: torch.Tensor, g_RC: torch.Tensor) -> None:
        """Add a layer's part of a batch; called during the backward pass."""
        if y_RC.is_cpu:
            self._add(
                index,
                core().statistics_add,
                images,
                channel_matrix(y_RC, -1, "y"),
                channel_matrix(g_RC, -1, "g"),
            )
        else:  # fetched after the backward pass: waiting for the device here would stall it
            self._on_device.append((index, images, y_RC[..., 0].numel(), device_sums(y_RC, g_RC)))
        if self._folder is not None:
            self._to_dump.append((index, images, _as_rows(y_RC), _as_rows(g_RC)))

    def end_batch(self) -> set[int]:
        """Finish a batch; returns the indices of the layers it was left out of."""
        for index, images, rows, sums_8C in self._on_device:
            self._add(
                index, core().statistics_add_sums, images, rows, arrow.matrix(sums_8C.cpu(), "sums")
            )
        self._on_device.clear()
        if self._folder is not None:
            self._folder.write_batch(
                (self._layers[index], images, y_RC, g_RC)
                for index, images, y_RC, g_RC in sorted(self._to_dump, key=lambda of: of[0])
            )
            self._to_dump.clear()
        self.batches += 1
        left_out, self._left_out = self._left_out, set()
        self._times_left_out.update(left_out)
        return left_out

    def skipped(self) -> dict[str, int]:
        """By layer, how many batches were left out.

        Raises
        ------
        NonFiniteError
            A layer has no batch left.
        """
        skipped = {
            self._layers[index].name: count for index, count in sorted(self._times_left_out.items())
        }
        lost = [name for name, count in skipped.items() if count == self.batches]
        if lost:
            raise NonFiniteError(
                f"all {self.batches} batches of {', '.join(lost)} hold NaN or infinity, expected "
                "some finite ones to measure: "
                "check the images and weights, or calibrate in float32"
            )
        return skipped

    def _add(self, index: int, function: Callable, *arguments) -> None:
        try:
            arrow.brief_call(function, self._session, index, *arguments)
        except NonFiniteError:
            if not self._skip:
                raise
            self._left_out.add(index)


def _as_rows(x_RC: torch.Tensor) -> torch.Tensor:
    """The rows on the CPU, as a dump has them: one after the other."""
    return x_RC.flatten(0, -2).contiguous().cpu()
