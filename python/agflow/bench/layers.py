"""``agflow bench layers``: the time of a model's products at all sizes that pruning may leave.

``agflow plan --latency-ms`` reads the table it makes. Weights and activations are random: neither
matters to the time.
"""

from __future__ import annotations

import math

import pyarrow as pa
import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.devices import first_parameter
from agflow.bench.layer_calls import Shape, calls_of
from agflow.bench.machine import clock
from agflow.bench.memory import keep_freed
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.evaluation.timing import interleaved
from agflow.models import adapter_for, model_name
from agflow.pruning.latency import LatencyTable

KINDS = ("linear", "convolution", "attention", "pointwise", "norm")
"""Products that take time; "parameters" only take memory."""

STEP = 8  # sizes are multiples of it where the dense size has room for some
VALUES = 6  # of a dimension that pruning changes
HEAD_WIDTHS = 4  # between them the time of attention is all but linear
MODEL = "model"

_LEAST_SECONDS = 0.01  # of one measurement: so short that all sizes take turns within seconds


def shapes_of(costs: dict) -> list[Shape]:
    """The distinct shapes of a model's products, each with its grid.

    Parameters
    ----------
    costs : as the metadata ``agflow.costs`` has them; a size is a sum of terms
        [coefficient, layer, layer, …]
    """
    moved: dict[tuple, tuple[bool, ...]] = {}
    for product in costs["products"]:
        if product["kind"] not in KINDS:
            continue
        dense, moves = _axes(product, costs["sizes"])
        about = tuple(product.get(name, 0) for name in ("kind", "rows", "kernel", "stride"))
        key = *about, *dense
        moved[key] = tuple(map(max, moves, moved.get(key, moves)))
    return [_shape(*key, *moves) for key, moves in moved.items()]


def _axes(product: dict, layers: dict[str, int]) -> tuple[list[int], list[bool]]:
    """The dense size of a product along each axis of its grid, and whether pruning changes it.

    Of a convolution these are the inputs and outputs of one group, and the groups. A depthwise one
    has outputs and groups of the same layers, so that one group always stays as it is.
    """
    convolution = product["kind"] == "convolution"
    fields = "inputs", "outputs", "groups" if convolution else "heads"
    terms = [product.get(field, []) for field in fields]
    dense = [_dense(of, layers) for of in terms]
    moves = [any(len(term) > 1 for term in of) for of in terms]
    if convolution:
        dense[2] = dense[2] or 1
        dense[1] //= dense[2]
        names = [[term[1:] for term in of] for of in terms]
        moves[1] = moves[1] and not (moves[2] and names[1] == names[2])
    return dense, moves


def measure(
    model: nn.Module,
    *,
    batch: int = default("bench_layers", "batch"),
    rounds: int = default("bench_layers", "rounds"),
) -> LatencyTable:
    """Measure the milliseconds of every size of every product, and of the whole model.

    Times are those of a batch on the model's device, medians of interleaved rounds. From then on
    this process keeps the memory it frees (:func:`agflow.bench.memory.keep_freed`).

    Parameters
    ----------
    batch : images of a batch

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model, or its adapter reports no costs.
    InvalidValueError
        Fewer than one image or round.
    """
    if min(batch, rounds) < 1:
        raise InvalidValueError(
            f"batch is {batch} and rounds {rounds}, expected whole numbers from 1"
        )
    keep_freed()
    adapter, like = adapter_for(model), first_parameter(model)
    costs = adapter.costs(model)
    if costs is None:
        raise UnsupportedModelError(
            f"the adapter of {type(model).__name__} does not report what its products cost at "
            "other sizes: give it a method costs"
        )
    shapes = shapes_of(costs)
    x = torch.randn(batch, *adapter.input_size(model), device=like.device, dtype=like.dtype)
    with torch.inference_mode():
        calls = calls_of(shapes, batch, like)
        times = interleaved(
            {MODEL: lambda: model(x), **calls},
            rounds=rounds,
            clock=clock(like.device),
            least_seconds=_LEAST_SECONDS,
            pause_seconds=0,
        )
    rows = [
        (shape.kind, shape.rows, shape.name, *cell, 1e3 * times[shape, cell].median)
        for shape in shapes
        for cell in shape.cells
    ]
    metadata = {
        "agflow.kind": "latency",
        "agflow.model": model_name(model),
        "agflow.batch": str(batch),
        "agflow.device": _device(like.device),
        "agflow.threads": str(torch.get_num_threads()),
        "agflow.torch": torch.__version__,
        "agflow.model_ms": repr(1e3 * times[MODEL].median),
    }
    columns = [
        pa.array(column, kind)
        for column, kind in zip(zip(*rows, strict=True), _SCHEMA.types, strict=True)
    ]
    return LatencyTable(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata)))


_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.utf8()),
        pa.field("rows", pa.int64()),
        pa.field("shape", pa.utf8()),
        pa.field("inputs", pa.int64()),
        pa.field("outputs", pa.int64()),
        pa.field("heads", pa.int64()),
        pa.field("ms", pa.float64()),
    ]
)


def _dense(terms: list, sizes: dict[str, int]) -> int:
    return sum(
        coefficient * math.prod(sizes[layer] for layer in layers) for coefficient, *layers in terms
    )


def _shape(
    kind: str,
    rows: int,
    kernel: int,
    stride: int,
    inputs: int,
    outputs: int,
    heads: int,
    inputs_move: bool,
    outputs_move: bool,
    heads_move: bool,
) -> Shape:
    if kind != "attention":
        return Shape(
            kind,
            rows,
            _axis(inputs, inputs_move, VALUES),
            _axis(outputs, outputs_move, VALUES),
            _axis(heads, heads_move, VALUES),
            kernel,
            stride,
        )
    inputs_C, outputs_C = (
        tuple(heads * width for width in _axis(total // heads, move, HEAD_WIDTHS))
        for total, move in ((inputs, inputs_move), (outputs, outputs_move))
    )
    whole = tuple(
        n for n in range(1, heads + 1) if all(total % n == 0 for total in (*inputs_C, *outputs_C))
    )
    return Shape(kind, rows, inputs_C, outputs_C, whole if heads_move else (heads,))


def _axis(dense: int, moves: bool, values: int) -> tuple[int, ...]:
    if not moves or dense == 0:
        return (dense,)
    step = STEP if dense >= 2 * STEP else 1
    return tuple(
        sorted(
            {
                min(dense, max(step, step * round(dense * i / values / step)))
                for i in range(1, values)
            }
            | {dense}
        )
    )


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def text(table: LatencyTable) -> str:
    """The table as text, in a few lines."""
    about = {name.removeprefix("agflow."): value for name, value in table.metadata.items()}
    lines = [
        f"{about['model']}, batch {about['batch']}, {about['device']}, "
        f"{about['threads']} thread(s), torch {about['torch']}: {table.model_ms:.2f} ms a batch"
    ]
    shapes, ms = table.columns["shape"], table.columns["ms"]
    for shape in dict.fromkeys(shapes):
        of_shape = ms[shapes == shape]  # the dense size is the last
        lines.append(
            f"  {shape:<28} {len(of_shape):4d} sizes  "
            f"{of_shape.min():9.3f} to {of_shape[-1]:9.3f} ms"
        )
    return "\n".join(lines)
