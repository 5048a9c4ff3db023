"""``agflow bench layers``: the time of a model's products at all sizes that pruning may leave.

``agflow plan --latency-ms`` reads the table it makes. Weights and activations are random: neither
matters to the time.

Shape suffixes: B images, T rows of an image (tokens), I inputs, O outputs, N heads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional as F

from agflow._utils.defaults import default
from agflow._utils.devices import first_parameter
from agflow.bench.machine import clock
from agflow.bench.memory import keep_freed
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.evaluation.timing import interleaved
from agflow.models import adapter_for, model_name
from agflow.models.self_attention import attend
from agflow.pruning.latency import LatencyTable

KINDS = ("linear", "attention", "pointwise", "norm")
"""Products that take time; "parameters" only take memory."""

STEP = 8  # sizes are multiples of it where the dense size has room for some
VALUES = 6  # of a dimension that pruning changes
HEAD_WIDTHS = 4  # between them the time of attention is all but linear
MODEL = "model"

_LEAST_SECONDS = 0.01  # of one measurement: so short that all sizes take turns within seconds


@dataclass(frozen=True)
class Shape:
    """The grid of sizes that products of one kind and one dense size share.

    Attributes
    ----------
    inputs, outputs, heads : sizes of the grid, ascending, the dense one last; [0] where the kind
        has none. For attention inputs are the query channels and outputs the value channels of all
        heads together.
    """

    kind: str
    rows: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    heads: tuple[int, ...]

    @property
    def name(self) -> str:
        """The text by which a planner finds the shape of a product."""
        sizes = [
            self.rows,
            *(axis[-1] for axis in (self.inputs, self.outputs, self.heads) if axis != (0,)),
        ]
        return f"{self.kind} {'x'.join(map(str, sizes))}"

    @property
    def cells(self) -> Iterator[tuple[int, int, int]]:
        """Every size of the grid, as (inputs, outputs, heads)."""
        return itertools.product(self.inputs, self.outputs, self.heads)


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
        sizes = [product.get(field, []) for field in ("inputs", "outputs", "heads")]
        dense = (
            product["kind"],
            product["rows"],
            *(_dense(terms, costs["sizes"]) for terms in sizes),
        )
        moves = [any(len(term) > 1 for term in terms) for terms in sizes]
        moved[dense] = tuple(map(max, moves, moved.get(dense, moves)))
    return [_shape(*dense, *moves) for dense, moves in moved.items()]


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
        calls = _calls(shapes, batch, like)
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
            (0,),
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


def _calls(
    shapes: list[Shape], batch: int, like: torch.Tensor
) -> dict[tuple[Shape, tuple[int, int, int]], Callable[[], object]]:
    """One call for each size, all on the same memory.

    In a model, too, a product reads what has just been written.
    """
    memory = torch.randn(
        max(max(2 * i + o, o) * shape.rows * batch for shape in shapes for i, o, _ in shape.cells),
        device=like.device,
        dtype=like.dtype,
    )
    weights = torch.randn(
        max((i + 1) * o for shape in shapes for i, o, _ in shape.cells),
        device=like.device,
        dtype=like.dtype,
    )

    def tensor(of: torch.Tensor, *shape: int) -> torch.Tensor:
        return of[: math.prod(shape)].view(shape)

    def call(shape: Shape, i: int, o: int, n: int) -> Callable[[], object]:
        if shape.kind == "linear":
            x_BTI, weight_OI, bias_O = (
                tensor(memory, batch, shape.rows, i),
                tensor(weights, o, i),
                weights[-o:],
            )
            return lambda: F.linear(x_BTI, weight_OI, bias_O)
        if shape.kind == "attention":
            qkv_BTC = tensor(memory, batch, shape.rows, 2 * i + o)

            def attention() -> torch.Tensor:
                q_BTC, k_BTC, v_BTC = qkv_BTC.split((i, i, o), -1)
                return attend(q_BTC, k_BTC, v_BTC, n, i // n)

            return attention
        x_BTO, weight_O = tensor(memory, batch, shape.rows, o), weights[:o]
        return (
            (lambda: F.gelu(x_BTO))
            if shape.kind == "pointwise"
            else (lambda: F.layer_norm(x_BTO, (o,), weight_O, weight_O))
        )

    return {(shape, cell): call(shape, *cell) for shape in shapes for cell in shape.cells}


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
