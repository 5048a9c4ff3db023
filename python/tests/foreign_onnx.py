"""ONNX files as other programs write them: a linear classifier of images, in a few operators."""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, HEIGHT, WIDTH, CLASSES = 3, 4, 6, 5
KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
}


def weights(seed: int = 0) -> np.ndarray:
    """Of the classifier, float32 [C * H * W, K]."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(CHANNELS * HEIGHT * WIDTH, CLASSES)).astype(np.float32)


def write_classifier(
    path: pathlib.Path,
    *,
    dtype: str = "float32",
    batch: int | str = "N",
    size: tuple = (HEIGHT, WIDTH),
    channels_last: bool = False,
    softmax: bool = False,
    outputs: tuple[str, ...] = ("scores",),
    more_inputs: tuple[str, ...] = (),
    metadata: str | None = None,
) -> np.ndarray:
    """Write the file; returns its weights."""
    kind, nodes, values = KINDS[dtype], [], "pixels"
    weights_FK = weights()
    shape = [batch, *size, CHANNELS] if channels_last else [batch, CHANNELS, *size]
    inputs = [helper.make_tensor_value_info(n, kind, shape) for n in ("pixels", *more_inputs)]
    if channels_last:
        nodes.append(helper.make_node("Transpose", [values], ["planes"], perm=[0, 3, 1, 2]))
        values = "planes"
    nodes.append(helper.make_node("Flatten", [values], ["flat"]))
    for output in outputs:
        product = f"{output}_product" if softmax else output
        nodes.append(helper.make_node("MatMul", ["flat", "weights"], [product]))
        if softmax:
            nodes.append(helper.make_node("Softmax", [product], [output]))
    held = numpy_helper.from_array(weights_FK.astype("float32" if dtype == "uint8" else dtype))
    held.name = "weights"
    if dtype == "uint8":
        nodes.insert(0, helper.make_node("Cast", [nodes[0].input[0]], ["floats"], to=1))
        nodes[1].input[0], kind = "floats", TensorProto.FLOAT
    found = [helper.make_tensor_value_info(o, kind, [batch, CLASSES]) for o in outputs]
    graph = helper.make_graph(nodes, "foreign", inputs, found, [held])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    if metadata is not None:
        helper.set_model_props(model, {"agflow": metadata})
    onnx.save(model, path)
    return weights_FK
