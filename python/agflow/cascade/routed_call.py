"""One call of a cascade: everything around the passes of its experts.

Its functions stay outside of the graphs of ``torch.compile``, which compiles the experts between.

Shape suffixes: B images of a call, E escalated ones, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from agflow._utils.compiling import outside_graphs
from agflow._utils.devices import first_parameter
from agflow._utils.modes import evaluating
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS, combine
from agflow.cascade.priors import escalations
from agflow.data.batches import read_images
from agflow.errors import EmptyError, ShapeError

if TYPE_CHECKING:
    from agflow.cascade.cascade import Cascade


class RoutedCall:
    """The images of a call on their way through both experts.

    Inside of ``with``, the experts are in evaluation mode; at its end ``seconds`` is known.

    Attributes
    ----------
    images, escalated : numbers of images
    seconds : from the images to the logits
    """

    @outside_graphs
    def __init__(self, cascade: Cascade, x: torch.Tensor):
        self._start = time.perf_counter()
        self._cascade, self._x = cascade, _read(x)
        self.images, self.escalated, self.seconds = len(x), 0, 0.0
        self._size = cascade.max_batch or len(x)
        self._light: list[torch.Tensor] = []
        self._heavy: list[torch.Tensor] = []
        self._rows: list[torch.Tensor] = []
        self._compacted: list[torch.Tensor] = []
        self._mode = ExitStack()

    @outside_graphs
    def __enter__(self) -> RoutedCall:
        self._mode.enter_context(evaluating(self._cascade.light, self._cascade.heavy))
        return self

    @outside_graphs
    def __exit__(self, *error: Any) -> None:
        self._mode.close()
        if self._x.is_cuda:
            torch.cuda.current_stream(self._x.device).synchronize()
        self.seconds = time.perf_counter() - self._start

    @outside_graphs
    def pieces(self) -> Sequence[torch.Tensor]:
        """The images in pieces of at most ``max_batch``, as the shared prefix takes them."""
        pieces = self._x.split(self._size)
        if not self._cascade.shared_blocks:
            return pieces
        weight = first_parameter(self._cascade._prefix)
        return [piece.to(weight) for piece in pieces]

    @outside_graphs
    def take_light(self, logits_BK: torch.Tensor, seen_B: torch.Tensor) -> None:
        """Route the next piece by its light logits.

        Parameters
        ----------
        seen_B : what the heavy expert takes for these images: themselves, or their tokens
        """
        cascade, number = self._cascade, len(self._light)
        self._light.append(_float(logits_BK))
        rows_E = escalations(
            self._light[-1],
            cascade.threshold,
            prior=cascade.prior,
            temperature=cascade.temperature,
        )
        self._rows.append(rows_E + number * self._size)
        self._compacted.append(seen_B.index_select(0, rows_E.to(seen_B.device)))
        self.escalated += len(rows_E)

    @outside_graphs
    def compacted(self) -> Sequence[torch.Tensor]:
        """What the heavy expert takes for escalated images, in pieces of at most ``max_batch``."""
        return _joined(self._compacted).split(self._size) if self.escalated else ()

    @outside_graphs
    def take_heavy(self, logits_EK: torch.Tensor) -> None:
        """Keep the heavy logits of the next piece of escalated images."""
        self._heavy.append(_float(logits_EK))

    @outside_graphs
    def answers(self) -> torch.Tensor:
        """The light logits [B, K] with those of escalated images replaced."""
        logits_BK = _joined(self._light)
        if not self.escalated:
            return logits_BK
        heavy_EK, rows_E = _joined(self._heavy), _joined(self._rows)
        if heavy_EK.shape[1] != logits_BK.shape[1]:
            raise ShapeError(
                f"the heavy expert answers for {heavy_EK.shape[1]} classes, "
                f"the light one for {logits_BK.shape[1]}: "
                "both must know the same classes in the same order"
            )
        if self._cascade.answers == ENSEMBLE_ANSWERS:
            light_EK = logits_BK.index_select(0, rows_E)
            heavy_EK = combine(light_EK, heavy_EK, self._cascade.light_weight)
        return logits_BK.index_copy(0, rows_E, heavy_EK.to(logits_BK))


def _read(x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4:
        raise ShapeError(
            f"the images have the shape {tuple(x.shape)}, expected [B, C, H, W]: "
            "give a single image as image[None]"
        )
    if not len(x):
        raise EmptyError("the batch has no image; expected at least one")
    return read_images(x)


def _float(logits_BK: torch.Tensor) -> torch.Tensor:
    """Logits in float32 at least: the experts may compute in different types."""
    return logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
