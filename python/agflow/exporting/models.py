"""Models as files for other runtimes: ONNX, and torch's own ExportedProgram.

Every file is compared with the model before it appears. Shape suffixes: B images, K classes.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.devices import device_of, first_parameter
from agflow._utils.files import atomic_file
from agflow._utils.modes import preserve_training_mode
from agflow._utils.tensors import relative_difference
from agflow.cascade.cascade import Cascade
from agflow.data.preprocessing import Preprocessing
from agflow.errors import (
    DtypeError,
    InternalError,
    InvalidValueError,
    NonFiniteError,
    UnsupportedModelError,
)
from agflow.exporting.check_images import (
    CHECKED_IMAGES,
    at_own_size,
    float32_images,
    random_images,
)
from agflow.exporting.folder import ENDINGS
from agflow.models import (
    count_params,
    features_of,
    head_of,
    logits_of,
    model_name,
)
from agflow.models.callables import unwrapped
from agflow.models.copying import copy_of, own_methods

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LOGIT_TOLERANCE = 1e-4  # of the largest logit


def export(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    format: str | None = None,
    images: torch.Tensor | None = None,
    preprocessing: Preprocessing | None = None,
    opset: int = default("export", "opset"),
) -> float:
    """Write a dense or pruned model as a file for another runtime.

    The file maps input ``images`` float32 [batch, C, H, W] to output ``logits`` [batch, K], or to
    ``features`` [batch, …] of a model without a classifier (:func:`agflow.models.features_of`),
    for any batch size. C, H and W are the model's own: the file of a model that resizes its images
    (:func:`agflow.models.at_image_size`) takes them at that size, which its JSON text holds as
    ``image_size``; where the preprocessing makes larger images, shrink them bilinear and
    antialiased.

    The file is loaded again, by onnxruntime or by ``torch.export.load``, and must give the model's
    output before it gets its name. A JSON text beside the graph (ONNX metadata ``agflow``, extra
    file ``agflow.json``) holds the model's name and the preprocessing.

    A ``.pt2`` file of this function holds JSON and raw numbers, no pickle. But
    ``torch.export.load`` unpickles what it finds pickled in any file: load only files you trust, as
    torch's manual says. ONNX files hold no code.

    Parameters
    ----------
    format : ``"onnx"`` (needs the packages onnx, onnxscript and onnxruntime) or ``"torch"``; by
        default after the ending of ``path``, .onnx or .pt2
    images : real images to compare on, float32 [B, C, H, W], as ``model`` takes them; by default
        random ones
    preprocessing : kept in the file
    opset : version of ONNX's operators

    Returns
    -------
    largest difference of a logit or feature, as a share of the largest one

    Raises
    ------
    InvalidValueError
        The format or the opset is unknown, a package of the format is not installed, or ``images``
        are no batch of images.
    DtypeError, UnsupportedModelError
        The model is a cascade (:func:`agflow.exporting.export_cascade`) or not float32, torch
        cannot export it, or not with this opset, it cannot be copied, or no adapter finds the size
        of its images.
    NonFiniteError
        The model's logits are not finite.
    InternalError
        The file gives other logits than the model.
    FileError
        The file cannot be written.

    Examples
    --------
    >>> import agflow, tempfile, torch
    >>> model, _, _ = agflow.load_model("example")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     difference = agflow.export(model, f"{folder}/model.pt2")
    ...     exported = torch.export.load(f"{folder}/model.pt2").module()
    >>> difference < 1e-4, exported(torch.zeros(5, 1, 28, 28)).shape
    (True, torch.Size([5, 10]))
    """
    if isinstance(model, Cascade):
        raise UnsupportedModelError(
            "a cascade becomes several files: call agflow.exporting.export_cascade(cascade, folder)"
        )
    model = unwrapped(model)
    images = random_images(model) if images is None else at_own_size(model, float32_images(images))
    return export_for_images(
        model, path, images, format=format, preprocessing=preprocessing, opset=opset
    )


def export_for_images(
    model: nn.Module,
    path: str | os.PathLike,
    images: torch.Tensor,
    *,
    format: str | None = None,
    preprocessing: Preprocessing | None = None,
    opset: int = default("export", "opset"),
) -> float:
    """:func:`export` of a file that takes images of the size of ``images``.

    Where the model resizes images of that size, the file does so, too.
    """
    about = {
        "name": model_name(model),
        "params": count_params(model),
        "image_size": list(images.shape[2:]),
        "preprocessing": preprocessing and preprocessing.to_dict(),
    }
    example = images[:1].to(first_parameter(model))
    signature = IMAGES_TO_LOGITS if head_of(model, example).classes else IMAGES_TO_FEATURES
    return export_module(
        model, path, images, about, signature=signature, format=format, opset=opset
    )


@dataclass(frozen=True)
class Signature:
    """Names of the input and of the output of an exported module, and what it reads that from."""

    takes: str
    gives: str
    read: Callable[[Any], torch.Tensor] = logits_of


IMAGES_TO_LOGITS = Signature("images", "logits")
IMAGES_TO_FEATURES = Signature("images", "features", features_of)


def export_module(
    module: nn.Module,
    path: str | os.PathLike,
    examples: torch.Tensor,
    about: dict[str, Any],
    *,
    signature: Signature = IMAGES_TO_LOGITS,
    format: str | None = None,
    opset: int = default("export", "opset"),
) -> float:
    """:func:`export` for any module of one input and one output, such as a part of a model.

    Parameters
    ----------
    examples : inputs to compare on, float32 [N, …]; any N is then possible
    about : JSON values, kept in the file
    """
    path = pathlib.Path(path)
    format = _format(path, format)
    if format == "onnx":
        _check_opset(opset)
    plain = _Plain(copy_of(module).cpu(), signature.read).eval().requires_grad_(False)
    if any(parameter.dtype is not torch.float32 for parameter in plain.parameters()):
        raise DtypeError("the model is not wholly float32: call model.float() before the export")
    examples, text = examples[:CHECKED_IMAGES].cpu(), json.dumps(about)
    _check_copy(module, plain, examples)
    program = _program(plain, examples)
    with atomic_file(path, "exported model") as made:
        if format == "onnx":
            _write_onnx(program, made, text, opset, signature)
        else:
            _write_torch(program, made, text)
        exported = _run_onnx(made) if format == "onnx" else _run_torch(made)
        difference = _compare(plain, exported, examples, signature.gives)
    return difference


class _Plain(nn.Module):
    """A model whose input is named ``images`` and whose output is a bare tensor."""

    def __init__(self, model: nn.Module, read: Callable[[Any], torch.Tensor]):
        super().__init__()
        self.model, self.read = model, read

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.read(self.model(images))


def _check_opset(opset: int) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if type(opset) is not int or not 1 <= opset <= newest:
        raise InvalidValueError(
            f"opset is {opset!r}, expected a version of ONNX's operators from 1 to {newest}, such "
            f"as {default('export', 'opset')}"
        )


@torch.no_grad()
def _check_copy(module: nn.Module, plain: _Plain, examples: torch.Tensor) -> None:
    """Check that the copy, which has no methods of its instances' own, computes the same."""
    place = next((name for name, part in module.named_modules() if own_methods(part)), None)
    if place is None:
        return
    with preserve_training_mode(module):
        expected = plain.read(module.eval()(examples.to(device_of(module)))).cpu()
    if relative_difference(plain(examples), expected) > LOGIT_TOLERANCE:
        method = own_methods(module.get_submodule(place))[0]
        raise UnsupportedModelError(
            f"{place or type(module).__name__} has a {method} of its own, which changes what it "
            f"computes and cannot be exported: delete it first (del module.{method})"
        )


def _format(path: pathlib.Path, format: str | None) -> str:
    if format is None:
        format = next((name for name, ending in ENDINGS.items() if path.suffix == ending), None)
    if format not in ENDINGS:
        raise InvalidValueError(
            f"the format of {path} is {format!r}, expected one of {', '.join(ENDINGS)}: "
            f"give format=, or a path that ends in {' or '.join(ENDINGS.values())}"
        )
    missing = [name for name in ONNX_PACKAGES if format == "onnx" and find_spec(name) is None]
    if missing:
        raise InvalidValueError(
            f"ONNX export needs {', '.join(missing)}, which this Python does not have: "
            f"pip install {' '.join(ONNX_PACKAGES)}"
        )
    return format


def _program(plain: _Plain, images: torch.Tensor) -> torch.export.ExportedProgram:
    twice = torch.cat([images, images])  # torch treats a batch of one as a constant
    try:
        with torch.no_grad():
            program = torch.export.export(
                plain, (twice,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
            )
    except Exception as error:  # the tracer raises any kind for what it cannot follow
        name = type(plain.model).__name__
        reason = f"torch cannot export {name}: {_first_line(error)}"
        if "Constraints violated (batch)" in reason:
            reason = (
                f"torch cannot export {name} for any batch size: its code takes that as a plain "
                "number, as len(x) gives it; write x.shape[0]"
            )
        raise UnsupportedModelError(reason) from error
    program.example_inputs = None  # torch would pickle them into the file
    return program


def _write_onnx(
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
            f"the model cannot be written as ONNX of opset {opset}: {_first_line(error)}"
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
    onnx.helper.set_model_props(proto, {"agflow": about})
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _run_onnx(path: pathlib.Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (inlet,) = session.get_inputs()
    return lambda examples: torch.from_numpy(session.run(None, {inlet.name: examples.numpy()})[0])


def _write_torch(program: torch.export.ExportedProgram, path: pathlib.Path, about: str) -> None:
    # By way of the memory: where the disk is full, torch's own writer ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"agflow.json": about})
    path.write_bytes(content.getbuffer())
    pickled = _pickled(path)
    if pickled:
        raise UnsupportedModelError(
            f"torch {torch.__version__} writes pickles into .pt2 files ({', '.join(pickled)}), "
            "and agflow writes none: use a newer torch, or format='onnx'"
        )


def _run_torch(path: pathlib.Path):
    return torch.export.load(path).module()


def _pickled(path: pathlib.Path) -> list[str]:
    """Members of a .pt2 file that torch would unpickle."""
    with zipfile.ZipFile(path) as archive:
        found = [
            member.filename
            for member in archive.infolist()
            if member.filename.endswith(".pt") and member.file_size
        ]
        for name in archive.namelist():
            if name.endswith("_config.json"):
                found += [
                    key
                    for key, value in json.loads(archive.read(name))["config"].items()
                    if value["use_pickle"]
                ]
    return found


@torch.no_grad()
def _compare(plain: _Plain, exported, images: torch.Tensor, gives: str) -> float:
    """Largest difference on a batch and on a single image: either size might be built in."""
    differences = []
    several = images if len(images) > 1 else images.expand(CHECKED_IMAGES, *images.shape[1:])
    for batch in (several.contiguous(), images[:1]):
        expected_BK = plain(batch)
        if not expected_BK.isfinite().all():
            raise NonFiniteError(
                f"the model's own {gives} are not finite, so that an exported file cannot be "
                "checked against them: look for NaN or infinity in its weights"
            )
        differences.append(relative_difference(exported(batch), expected_BK))
    if not max(differences) <= LOGIT_TOLERANCE:
        raise InternalError(
            f"the exported model's {gives} differ from torch's by {max(differences):.1e} of the "
            f"largest, expected at most {LOGIT_TOLERANCE:.0e}: "
            "nothing was written; please report the model"
        )
    return max(differences)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
