"""Models as files for other runtimes: ONNX, and torch's own ExportedProgram.

Every file is compared with the model before it appears. Shape suffixes: B images, K classes.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.devices import device_of, first_parameter
from agflow._utils.files import atomic_file
from agflow._utils.modes import preserve_training_mode
from agflow._utils.onnx_session import OnnxSession
from agflow._utils.tensors import relative_difference
from agflow.cascade.cascade import Cascade
from agflow.cascade.file_names import ENDINGS
from agflow.data.preprocessing import Preprocessing
from agflow.errors import (
    DtypeError,
    InternalError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnsupportedModelError,
)
from agflow.exporting.example_images import CHECKED_IMAGES, first_images, passes
from agflow.exporting.onnx_files import (
    ONNX_PACKAGES,
    Signature,
    check_opset,
    first_line,
    write_metadata,
    write_onnx,
)
from agflow.exporting.quantizing import Images, check_quantization, quantize_file
from agflow.exporting.torch_files import write_torch
from agflow.models import (
    class_names,
    count_params,
    features_of,
    head_of,
    model_macs,
    model_name,
)
from agflow.models.callables import unwrapped
from agflow.models.copying import copy_of, own_methods
from agflow.models.expert import noted_tuning
from agflow.models.exported import refuse_exported
from agflow.models.resizing import resize_of

LOGIT_TOLERANCE = 1e-4  # of the largest logit


def export(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    format: str | None = None,
    images: Images | None = None,
    preprocessing: Preprocessing | None = None,
    opset: int = default("export", "opset"),
    quantize: str | None = None,
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
    file ``agflow.json``) holds the model's name, MACs and classes and the preprocessing.
    ``agflow.load("model.onnx")`` is a module that runs an ONNX file.

    With ``quantize`` the file computes in 8 bits, as onnxruntime quantises it: ``"int8-dynamic"``
    (linear layers, with activations quantised as they come), ``"int8-static"`` (convolutions and
    most operators, with ranges of activations that up to 128 of the images set) or
    ``"int8-weights"`` (weights of linear layers alone). ``"int8"`` makes the first two and takes
    the fastest, timed beside the float file in turn on this machine, of those that lose at most 0.5
    points of accuracy on the images that calibrate nothing; where images have no labels, the share
    of changed answers counts. The JSON text holds as ``quantization`` what was measured
    (:class:`agflow.exporting.Quantization`): images that chose nothing have the last word
    (``agflow evaluate --model int8.onnx --dense MODEL``). Its predictions are another model's:
    calibrate a router on those of the files that are served.

    A ``.pt2`` file of this function holds JSON and raw numbers, no pickle. But
    ``torch.export.load`` unpickles what it finds pickled in any file: load only files you trust, as
    torch's manual says. ONNX files hold no code.

    Parameters
    ----------
    format : ``"onnx"`` (needs the packages onnx, onnxscript and onnxruntime) or ``"torch"``; by
        default after the ending of ``path``, .onnx or .pt2
    images : real images to compare on, float32 [B, C, H, W], as ``model`` takes them; by default
        random ones. To quantise, also batches of images and labels that can be read twice
        (:mod:`agflow.data.batches`), of which some hundreds are needed
    preprocessing : kept in the file
    opset : version of ONNX's operators
    quantize : None, ``"int8"``, ``"int8-dynamic"``, ``"int8-static"`` or ``"int8-weights"``

    Returns
    -------
    largest difference of a logit or feature, as a share of the largest one, between the file and
    the model on the first images

    Raises
    ------
    InvalidValueError
        The format, the opset or the quantisation is unknown, a package of the format is not
        installed, ``images`` are no batch of images, or int8 loses more than 0.5 points on them.
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
    return export_expert(model, path, format, images, preprocessing, opset, quantize)


def export_expert(
    model: nn.Module,
    path: str | os.PathLike,
    format: str | None,
    images: Images | None,
    preprocessing: Preprocessing | None,
    opset: int = default("export", "opset"),
    quantize: str | None = None,
    *,
    strict: bool = True,
    size: tuple[int, int] | None = None,
) -> float:
    """:func:`export`; where not ``strict``, ``"int8"`` takes what loses least if all lose much.

    With a ``size``, which that of given images is, the file takes images of that size and resizes
    them as the model does.
    """
    if isinstance(model, Cascade):
        raise UnsupportedModelError(
            "a cascade becomes several files: call agflow.exporting.export_cascade(cascade, folder)"
        )
    model = unwrapped(model)
    refuse_exported(model)
    if quantize is not None:
        check_quantization(quantize, _format(pathlib.Path(path), format), images)
    examples = first_images(model, images, quantize, size)
    about = _about(model, examples, preprocessing)
    about["resizes"] = size is None and resize_of(model) is not None
    few = examples[:1].to(first_parameter(model))
    signature = IMAGES_TO_LOGITS if head_of(model, few).classes else IMAGES_TO_FEATURES
    if quantize is None:
        return export_module(
            model, path, examples, about, signature=signature, format=format, opset=opset
        )
    if signature is IMAGES_TO_FEATURES:
        raise UnsupportedModelError(
            f"{model_name(model)} puts out features, and int8 is judged by the answers of a "
            "classifier: export it without quantize"
        )
    with atomic_file(path, "exported model") as made:
        plain = made.with_name("float32.onnx")
        export_module(model, plain, examples, about, opset=opset)
        read = None if images is None else partial(passes, model, images, size)
        threads = torch.get_num_threads()
        found, sketch = quantize_file(plain, made, quantize, read, threads, strict=strict)
        tuning = f"{about['tuning']} {sketch}".strip()
        write_metadata(made, {**about, "quantization": asdict(found), "tuning": tuning})
        expected = _run_onnx(plain)(examples)
        return relative_difference(_run_onnx(made)(examples), expected)


def _about(
    model: nn.Module, images: torch.Tensor, preprocessing: Preprocessing | None
) -> dict[str, Any]:
    """The JSON text beside a graph; what is not known of a model is None."""
    about = {
        "name": model_name(model),
        "params": count_params(model),
        "macs": None,
        "classes": None,
        "image_size": list(images.shape[2:]),
        "preprocessing": preprocessing and preprocessing.to_dict(),
        "tuning": noted_tuning(model),
    }
    with suppress(UnsupportedModelError, ShapeError):  # one that puts out features has no logits
        about["macs"] = model_macs(model, images[:1])
    with suppress(UnsupportedModelError):
        about["classes"] = class_names(model)
    return about


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
        check_opset(opset)
    plain = _Plain(copy_of(module).cpu(), signature.read).eval().requires_grad_(False)
    if any(parameter.dtype is not torch.float32 for parameter in plain.parameters()):
        raise DtypeError("the model is not wholly float32: call model.float() before the export")
    examples, text = examples[:CHECKED_IMAGES].cpu(), json.dumps(about)
    _check_copy(module, plain, examples)
    program = _program(plain, examples)
    with atomic_file(path, "exported model") as made:
        if format == "onnx":
            write_onnx(program, made, text, opset, signature)
        else:
            write_torch(program, made, text)
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
        reason = f"torch cannot export {name}: {first_line(error)}"
        if "Constraints violated (batch)" in reason:
            reason = (
                f"torch cannot export {name} for any batch size: its code takes that as a plain "
                "number, as len(x) gives it; write x.shape[0]"
            )
        raise UnsupportedModelError(reason) from error
    program.example_inputs = None  # torch would pickle them into the file
    return program


def _run_onnx(path: pathlib.Path):
    session = OnnxSession(path)
    return lambda examples: torch.from_numpy(session.run(examples.numpy()))


def _run_torch(path: pathlib.Path):
    return torch.export.load(path).module()


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
