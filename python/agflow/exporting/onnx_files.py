"""ONNX files: written from an exported program, with a JSON text among their metadata."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from agflow._utils.defaults import default
from agflow._utils.onnx_session import METADATA_KEY
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models import logits_of

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Signature:
    """Names of the input and of the output of an exported module, and what it reads that from."""

    takes: str
    gives: str
    read: Callable[[Any], torch.Tensor] = logits_of


def check_opset(opset: int) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if type(opset) is not int or not 1 <= opset <= newest:
        raise InvalidValueError(
            f"opset is {opset!r}, expected a version of ONNX's operators from 1 to {newest}, such "
            f"as {default('export', 'opset')}"
        )


def write_onnx(
    program: torch.export.ExportedProgram,
    path: pathlib.Path,
    about: str,
    opset: int,
    signature: Signature,
) -> None:
    import onnx

    try:
        made = torch.onnx.export(
            program,
            (),
            input_names=[signature.takes],
            output_names=[signature.gives],
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        proto = cast("torch.onnx.ONNXProgram", made).model_proto  # of dynamo=True
    except Exception as error:  # operators without an ONNX counterpart, an opset, more than 2 GB
        raise UnsupportedModelError(
            f"the model cannot be written as ONNX of opset {opset}: {first_line(error)}"
        ) from error
    written = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:  # torch says so in its log only
        raise UnsupportedModelError(
            f"torch wrote opset {written} where {opset} was asked for: the model has operators "
            f"that it cannot convert; ask for opset {written}"
        )
    symbols = {
        dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim if dim.dim_param
    }
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:  # torch names its symbols s0, s1, …
                dim.dim_param = "batch"
    onnx.helper.set_model_props(proto, {METADATA_KEY: about})
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def write_metadata(path: pathlib.Path, about: dict[str, Any]) -> None:
    """Replace the JSON text in an ONNX file."""
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about)})
    onnx.save(proto, path)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
