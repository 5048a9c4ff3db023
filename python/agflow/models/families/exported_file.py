"""Exported experts among the families: they are run and described, and never cut."""

from __future__ import annotations

import pathlib
from typing import Any, cast

from torch import nn

from agflow._utils.onnx_session import OnnxSession
from agflow.data.exported_preprocessing import file_preprocessing
from agflow.data.preprocessing import Preprocessing
from agflow.errors import CorruptFileError, InvalidValueError, UnsupportedModelError
from agflow.models.adapter import Adapter
from agflow.models.channel_group import ChannelGroup
from agflow.models.exported import ExportedExpert, refuse_exported


class ExportedFile(Adapter):
    """Adapter for experts in ONNX files: what it knows stands in the file."""

    family = "exported"
    models = "ONNX files"
    library = "the file"

    def recognises(self, model: nn.Module) -> bool:
        return isinstance(model, ExportedExpert)

    def layers(self, model: nn.Module) -> list[ChannelGroup]:
        refuse_exported(model)
        return []

    def input_size(self, model: nn.Module) -> tuple[int, int, int]:
        expert = cast(ExportedExpert, model)
        session = expert.session if expert.prefix is None else expert.prefix.session
        if session.channels is None or session.image_size is None:
            raise UnsupportedModelError(
                f"{session.path} fixes no size of its images: export it with a fixed number of "
                "channels, height and width, and a batch of any size"
            )
        return session.channels, *session.image_size

    def preprocessing(self, model: nn.Module, folder: pathlib.Path | None = None) -> Preprocessing:
        session = _session(model)
        found = file_preprocessing(session.path, session.metadata)
        if found is None:
            raise UnsupportedModelError(
                f"{session.path} does not say what its images are normalised by: give mean and "
                "std (--mean and --std), or export it with preprocessing="
            )
        return found

    def class_count(self, model: nn.Module) -> int:
        session = _session(model)
        if session.classes is None:
            raise UnsupportedModelError(
                f"{session.path} puts out no logits [images, classes]: export a classifier"
            )
        return session.classes

    def class_names(self, model: nn.Module) -> list[str] | None:
        names = _session(model).metadata.get("classes")
        return [str(name) for name in names] if isinstance(names, list) else None

    def macs(self, model: nn.Module) -> int:
        macs = _session(model).metadata.get("macs")
        if type(macs) is int and macs > 0:
            return macs
        raise UnsupportedModelError(
            f"the MACs of {_session(model).path} do not stand in the file: give the costs of both "
            "experts, costs=(0.25, 1.0), or have them timed, costs='measured'"
        )

    def describe(self, model: nn.Module) -> dict[str, Any]:
        refuse_exported(model)
        return {}

    def set_image_size(self, model: nn.Module, height: int, width: int) -> None:
        refuse_exported(model)

    def split(self, model: nn.Module, blocks: int) -> tuple[nn.Module, nn.Module]:
        expert = cast(ExportedExpert, model)
        if expert.prefix is None:
            refuse_exported(model)
            return super().split(model, blocks)
        exported = expert.prefix.session.metadata.get("shared_blocks")
        if exported != blocks:
            raise InvalidValueError(
                f"{expert.session.path} was exported behind {exported} shared blocks and cannot "
                f"be split behind {blocks}: give shared_blocks={exported}"
            )
        return expert.prefix, expert.rest

    def build(self, description: dict[str, Any]) -> nn.Module:
        raise CorruptFileError("an exported expert is an ONNX file and is built from no folder")


def _session(model: nn.Module) -> OnnxSession:
    return cast(ExportedExpert, model).session
