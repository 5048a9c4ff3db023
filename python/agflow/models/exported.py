"""Experts in ONNX files as modules: run by ONNX Runtime, described by the metadata of the file.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import os
import pathlib

import torch
from torch import nn

from agflow._utils.onnx_session import OnnxSession
from agflow.data.exported_preprocessing import file_preprocessing
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models.resizing import Resize

ONNX_FORM, ONNX_ENDING = "onnx:", ".onnx"


class ExportedPart(nn.Module):
    """A part of an expert in an ONNX file: images to tokens [B, T, D], or tokens to logits [B, K].

    Parameters
    ----------
    session : runs the file

    Examples
    --------
    See :class:`ExportedExpert`, which is made of two where it is behind a shared prefix.
    """

    def __init__(self, session: OnnxSession):
        super().__init__()
        self.session = session

    def forward(self, values_B: torch.Tensor) -> torch.Tensor:
        """Return the file's output for a batch, float32 on the device of the batch."""
        found = self.session.run(values_B.detach().float().cpu().numpy())
        return torch.from_numpy(found).to(values_B.device)


class ExportedExpert(nn.Module):
    """An expert in an ONNX file, which ONNX Runtime runs on the CPU: inference only.

    It maps images, float32 [B, C, H, W] on any device, to logits [B, K] on theirs. Files of
    :func:`agflow.export` whose model resizes its images resize them, too.

    Parameters
    ----------
    path : of the file
    threads : of a pass; None takes ``torch.get_num_threads()``
    prefix : the first blocks, from images to tokens, where the file goes on from tokens

    Attributes
    ----------
    session : OnnxSession
        Runs the file; ``session.metadata`` is what :func:`agflow.export` noted in it.
    num_classes : int or None
    prefix, rest : both parts; the prefix is None where the file takes images

    Raises
    ------
    FileError, CorruptFileError, UnsupportedModelError, InvalidValueError
        The file is missing, damaged or none that can be run, or onnxruntime is not installed.

    Examples
    --------
    >>> import agflow, tempfile, torch
    >>> from agflow.models.exported import ExportedExpert
    >>> model, _, _ = agflow.load_model("example")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     difference = agflow.export(model, f"{folder}/model.onnx")
    ...     expert = ExportedExpert(f"{folder}/model.onnx")
    >>> expert(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int | None = None,
        prefix: ExportedPart | None = None,
    ):
        super().__init__()
        self.session = OnnxSession(path, torch.get_num_threads() if threads is None else threads)
        self.prefix, self.rest = prefix, ExportedPart(self.session)
        if prefix is None and not self.session.takes_images:
            raise UnsupportedModelError(
                f"{path} goes on from the tokens of a shared prefix, expected a file from images "
                "to logits: run it behind its prefix, as the README beside it says"
            )
        self.num_classes = self.session.classes
        name = self.session.metadata.get("name") or self.session.path.stem
        self.pretrained_cfg = {"architecture": str(name)}  # where models of timm have their name
        size = self.session.image_size
        self._resize = Resize(*size) if size and self.session.metadata.get("resizes") else None

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, K]."""
        taken = images_BCHW
        if self._resize is not None:
            taken = self._resize.resized(images_BCHW.detach().float())
        if self.prefix is not None:
            taken = self.prefix(taken)
        return self.rest(taken)

    def extra_repr(self) -> str:
        return f"{self.session.path}, {self.session.runtime}, {self.session.threads} threads"


def exported_file(spec: str | os.PathLike) -> pathlib.Path | None:
    """The ONNX file that ``spec`` names, ``onnx:FILE`` or ``FILE.onnx``; None for other models.

    Examples
    --------
    >>> from agflow.models.exported import exported_file
    >>> exported_file("onnx:light"), exported_file("light.onnx"), exported_file("timm:vit.onnx")
    (PosixPath('light'), PosixPath('light.onnx'), None)
    """
    text = os.fspath(spec)
    if text.startswith(ONNX_FORM):
        return pathlib.Path(text.removeprefix(ONNX_FORM))
    form = text.partition(":")[0]
    is_other = form != text and "/" not in form
    return pathlib.Path(text) if text.endswith(ONNX_ENDING) and not is_other else None


def check_normalisation(light: nn.Module, preprocessing: Preprocessing) -> None:
    """Refuse an exported light expert whose images are normalised otherwise than the given ones.

    Parameters
    ----------
    preprocessing : of the heavy expert, whose images both see

    Raises
    ------
    InvalidValueError
        Its file has another mean or std.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.data import Preprocessing
    >>> from agflow.models.exported import check_normalisation
    >>> check_normalisation(nn.Identity(), Preprocessing((8, 8), (0.5,), (0.5,)))
    """
    if not isinstance(light, ExportedExpert):
        return
    path = light.session.path
    own = file_preprocessing(path, light.session.metadata)
    for name in ("mean", "std") if own is not None else ():
        found, expected = getattr(own, name), getattr(preprocessing, name)
        if found != expected:
            raise InvalidValueError(
                f"the images of {path} have the {name} {found}, the heavy expert's {expected}, and "
                "both see the same images: export one of them behind a layer that normalises"
            )


def refuse_exported(model: nn.Module) -> None:
    """Refuse an exported expert where gradients have to flow or layers are changed.

    Raises
    ------
    UnsupportedModelError
        The model is an exported expert.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.exported import refuse_exported
    >>> refuse_exported(nn.Linear(2, 2))
    """
    if isinstance(model, ExportedExpert):
        raise UnsupportedModelError(
            f"{model.session.path} is an exported expert, without gradients and layers: measure, "
            "prune, train, resize or save the model that it was exported from (an expert folder, "
            "timm:NAME, ...) and export the result; the file itself can be copied"
        )
