"""ONNX files with 8-bit products, made of float ones by onnxruntime's own quantisation.

Shape suffixes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from agflow._utils.instruction_set import instruction_set, saturates
from agflow._utils.onnx_session import OnnxSession
from agflow.errors import UnsupportedModelError

DYNAMIC, STATIC, WEIGHTS = "int8-dynamic", "int8-static", "int8-weights"
_TAKES = {
    DYNAMIC: "linear layers",
    STATIC: "convolutions and linear layers",
    WEIGHTS: "linear layers of tokens (MatMul)",
}
_BLOCK = 64  # weights with one scale
_CALIBRATION_BATCH = 8
_PRODUCTS = ["MatMul", "Gemm"]


def write_quantized(
    method: str, plain: pathlib.Path, made: pathlib.Path, calibration_BCHW: np.ndarray
) -> None:
    """Write the file ``made`` by a method from the float file ``plain``.

    Parameters
    ----------
    method : ``"int8-dynamic"``, ``"int8-static"`` or ``"int8-weights"``
    calibration_BCHW : float32 images, whose activations set the static ranges

    Raises
    ------
    UnsupportedModelError
        onnxruntime cannot quantise the graph, or finds nothing in it to quantise.
    """
    write = {DYNAMIC: _write_dynamic, STATIC: _write_static, WEIGHTS: _write_weights}[method]
    try:
        with _quietly():
            write(_prepared(plain), made, calibration_BCHW)
    except Exception as error:  # of any kind, from graphs that it does not expect
        raise UnsupportedModelError(
            f"onnxruntime cannot quantise the model by {method}: {type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
    if not _quantized_nodes(made):
        raise UnsupportedModelError(
            f"{method} finds nothing to quantise: it takes {_TAKES[method]}; expected a model with "
            f"some, or another of {', '.join(_TAKES)}"
        )


def _prepared(plain: pathlib.Path) -> pathlib.Path:
    """The float file with shapes inferred and operators fused, as quantisation wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = plain.with_suffix(".prepared.onnx")
    if not prepared.exists():
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    return prepared


def _write_dynamic(plain: pathlib.Path, made: pathlib.Path, _: np.ndarray) -> None:
    """Linear layers with activations quantised as they come, by one scale a tensor and pass.

    Convolutions stay float: ConvInteger, which they would become, is slow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        plain,
        made,
        per_channel=True,
        reduce_range=saturates(instruction_set()),
        weight_type=QuantType.QInt8,
        op_types_to_quantize=_PRODUCTS,
    )


def _write_static(plain: pathlib.Path, made: pathlib.Path, calibration_BCHW: np.ndarray) -> None:
    """All operators that have an 8-bit kernel, with ranges of activations seen on images."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = OnnxSession(plain, threads=1).input

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            starts = range(0, len(calibration_BCHW), _CALIBRATION_BATCH)
            self._pieces = (calibration_BCHW[at : at + _CALIBRATION_BATCH] for at in starts)

        def get_next(self) -> Any:  # None at the end, which its base's type leaves out
            piece = next(self._pieces, None)
            return None if piece is None else {name: piece}

    quantize_static(
        plain,
        made,
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=saturates(instruction_set()),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _write_weights(plain: pathlib.Path, made: pathlib.Path, _: np.ndarray) -> None:
    """Weights of linear layers in 8 bits, with a scale for every 64, and float activations."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    config = DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK, is_symmetric=True, accuracy_level=4, bits=8
    )
    quantizer = MatMulNBitsQuantizer(onnx.load(plain), algo_config=config)
    quantizer.process()
    cast(Any, quantizer.model).save_model_to_file(os.fspath(made))


def _quantized_nodes(path: pathlib.Path) -> int:
    import onnx

    words = ("Quantize", "Integer", "QLinear", "NBits")
    nodes = onnx.load(path, load_external_data=False).graph.node
    return sum(any(word in node.op_type for word in words) for node in nodes)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the log of onnxruntime's tools, which gives hints to their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
