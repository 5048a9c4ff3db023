"""The experts of a cascade folder, in PyTorch: the same passes as those of a call of the cascade.

Shape suffixes: B images of a batch, E escalated ones, C, H, W of an image, K classes.
"""

from __future__ import annotations

import pathlib
from contextlib import suppress

import numpy as np
import torch
from torch import nn

from agflow._utils.computing import Computing
from agflow._utils.devices import first_parameter
from agflow._utils.modes import without_gradients
from agflow.cascade.cascade import Cascade
from agflow.cascade.file_names import HEAVY_FOLDER
from agflow.cascade.folder import Given, load_cascade, router_of
from agflow.cascade.ledger import CascadeCosts
from agflow.data.preprocessing import Preprocessing
from agflow.errors import FileError, InvalidValueError, UnsupportedModelError
from agflow.models import adapter_for, class_names, model_logits
from agflow.models.callables import unwrapped
from agflow.models.expert import expert_preprocessing


class TorchExperts:
    """Both experts as :func:`agflow.load` loads them; see :class:`agflow.serving.experts.Experts`.

    Parameters
    ----------
    device : as torch names it
    threads : of a pass, for all of the process; None keeps torch's own number
    model : of :func:`agflow.load`, for experts of the user's own
    """

    runtime = "torch"

    def __init__(
        self,
        folder: pathlib.Path,
        device: str | None = None,
        threads: int | None = None,
        model: Given = None,
    ):
        if threads is not None:
            torch.set_num_threads(threads)
        computing = Computing.of_process(device, None)
        self._cascade: Cascade = computing.move(load_cascade(folder, model))
        self._tokens_B: torch.Tensor | None = None
        self.runtime_version = str(torch.__version__)
        self.device, self.threads = computing.device, torch.get_num_threads()
        self.max_batch = self._cascade.max_batch
        self.preprocessing: Preprocessing | None = None
        with suppress(FileError):  # it was saved without
            self.preprocessing = expert_preprocessing(folder / HEAVY_FOLDER)
        self.shape = _shape(self._cascade, self.preprocessing)
        self.class_names = _class_names(self._cascade)
        self.classes = self.light(np.zeros((1, *self.shape), np.float32)).shape[1]
        self.costs = _costs(self._cascade)

    @without_gradients
    def light(self, images_BCHW: np.ndarray) -> np.ndarray:
        """The light logits, float32 [B, K]."""
        prefix, light, _ = self._cascade.parts
        # A copy: this memory is not to be written, and a model may keep what it is given.
        pieces = self._pieces(torch.from_numpy(images_BCHW.copy()))
        if prefix is not None:
            weight = first_parameter(prefix)
            pieces = [prefix(piece.to(weight)) for piece in pieces]
            self._tokens_B = torch.cat(pieces)
        return _logits(light, pieces)

    @without_gradients
    def heavy(self, images_ECHW: np.ndarray, rows_E: np.ndarray) -> np.ndarray:
        """The heavy logits, float32 [E, K], of images at these rows of the last light batch."""
        if self._tokens_B is None:
            taken_E = torch.from_numpy(images_ECHW.copy())
        else:
            rows = torch.from_numpy(rows_E).to(self._tokens_B.device)
            taken_E = self._tokens_B.index_select(0, rows)
        return _logits(self._cascade.parts[2], self._pieces(taken_E))

    def _pieces(self, taken: torch.Tensor) -> list[torch.Tensor]:
        return list(taken.split(self.max_batch or len(taken)))


def _logits(model: nn.Module, pieces: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([model_logits(model, piece).float().cpu() for piece in pieces]).numpy()


def _shape(cascade: Cascade, preprocessing: Preprocessing | None) -> tuple[int, int, int]:
    if preprocessing is not None:
        return preprocessing.channels, *preprocessing.input_size
    heavy = unwrapped(cascade.heavy)
    return adapter_for(heavy).input_size(heavy)


def _class_names(cascade: Cascade) -> list[str] | None:
    for expert in (cascade.heavy, cascade.light):
        with suppress(UnsupportedModelError):  # no adapter knows it
            names = class_names(expert)
            if names is not None:
                return names
    return None


def _costs(cascade: Cascade) -> CascadeCosts:
    """The cascade's costs, or those of its calibration where they need an image first."""
    try:
        return cascade.costs
    except (InvalidValueError, UnsupportedModelError):
        return router_of(cascade).ledger.costs
