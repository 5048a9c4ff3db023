"""Products of a model as calls that can be timed: every size of a shape's grid, on one memory.

Shape suffixes: B images, T rows of an image (tokens), I inputs, O outputs, N heads; of convolutions
C channels, H height, W width, K and L the sides of the kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from agflow.models.self_attention import attend

Cell = tuple[int, int, int]
Call = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """The grid of sizes that products of one kind and one dense size share.

    Attributes
    ----------
    rows : of an image: tokens, or the positions of a convolution's result
    inputs, outputs, heads : sizes of the grid, ascending, the dense one last; [0] where the kind
        has none. For attention inputs are the query channels and outputs the value channels of all
        heads together. For a convolution inputs and outputs are those of one group, heads the
        groups
    kernel, stride : of a convolution: how many elements the kernel has, and its step; else 0
    """

    kind: str
    rows: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    heads: tuple[int, ...]
    kernel: int = 0
    stride: int = 0

    @property
    def name(self) -> str:
        """The text by which a planner finds the shape of a product."""
        sizes = [
            self.rows,
            *(axis[-1] for axis in (self.inputs, self.outputs, self.heads) if axis != (0,)),
            *((self.kernel, self.stride) if self.kernel else ()),
        ]
        return f"{self.kind} {'x'.join(map(str, sizes))}"

    @property
    def cells(self) -> Iterator[Cell]:
        """Every size of the grid, as (inputs, outputs, heads)."""
        return itertools.product(self.inputs, self.outputs, self.heads)

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of a convolution's result: the most nearly square with its positions."""
        height = next(n for n in range(math.isqrt(self.rows), 0, -1) if self.rows % n == 0)
        return height, self.rows // height

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Sides of the kernel: a square, or a row where its elements are none."""
        side = math.isqrt(self.kernel)
        return (side, side) if side * side == self.kernel else (1, self.kernel)

    @property
    def seen_size(self) -> tuple[int, int]:
        """Height and width of the padded map that a convolution reads."""
        height, width = (
            (result - 1) * self.stride + side
            for result, side in zip(self.map_size, self.kernel_size, strict=True)
        )
        return height, width

    def elements(self, cell: Cell) -> int:
        """Numbers that the product reads of one image, and at least those that it writes."""
        i, o, n = cell
        if self.kernel:
            return n * max(i * math.prod(self.seen_size), o * self.rows)
        return max(2 * i + o, o) * self.rows

    def weights(self, cell: Cell) -> int:
        """Numbers of the weight and the bias."""
        i, o, n = cell
        return (i * self.kernel + 1) * o * n if self.kernel else (i + 1) * o


@dataclass(frozen=True)
class _Memory:
    """Random numbers that all calls share: in a model, too, a product reads what was just made."""

    values: torch.Tensor
    weights: torch.Tensor
    batch: int

    def x(self, *shape: int) -> torch.Tensor:
        """An input of the whole batch, without its first axis in ``shape``."""
        return _head(self.values, self.batch, *shape)

    def w(self, *shape: int) -> torch.Tensor:
        return _head(self.weights, *shape)


def calls_of(shapes: list[Shape], batch: int, like: torch.Tensor) -> dict[tuple[Shape, Cell], Call]:
    """One call for each size of every shape, for a batch on the device and of the type of ``like``.

    Parameters
    ----------
    batch : images
    """
    cells = [(shape, cell) for shape in shapes for cell in shape.cells]
    random = lambda count: torch.randn(count, device=like.device, dtype=like.dtype)
    memory = _Memory(
        random(max(batch * shape.elements(cell) for shape, cell in cells)),
        random(max(shape.weights(cell) for shape, cell in cells)),
        batch,
    )
    return {(shape, cell): _CALLS[shape.kind](memory, shape, *cell) for shape, cell in cells}


def _linear(memory: _Memory, shape: Shape, i: int, o: int, _: int) -> Call:
    x_BTI, weight_OI, bias_O = memory.x(shape.rows, i), memory.w(o, i), memory.weights[-o:]
    return lambda: F.linear(x_BTI, weight_OI, bias_O)


def _convolution(memory: _Memory, shape: Shape, i: int, o: int, groups: int) -> Call:
    x_BCHW = memory.x(groups * i, *shape.seen_size)
    weight_OIKL = memory.w(groups * o, i, *shape.kernel_size)
    bias_O = memory.weights[-groups * o :]
    return lambda: F.conv2d(x_BCHW, weight_OIKL, bias_O, shape.stride, groups=groups)


def _attention(memory: _Memory, shape: Shape, i: int, o: int, n: int) -> Call:
    qkv_BTC = memory.x(shape.rows, 2 * i + o)

    def attention() -> torch.Tensor:
        q_BTC, k_BTC, v_BTC = qkv_BTC.split((i, i, o), -1)
        return attend(q_BTC, k_BTC, v_BTC, n, i // n)

    return attention


def _pointwise(memory: _Memory, shape: Shape, _: int, o: int, __: int) -> Call:
    x_BTO = memory.x(shape.rows, o)
    return lambda: F.gelu(x_BTO)


def _norm(memory: _Memory, shape: Shape, _: int, o: int, __: int) -> Call:
    x_BTO, weight_O = memory.x(shape.rows, o), memory.w(o)
    return lambda: F.layer_norm(x_BTO, (o,), weight_O, weight_O)


def _head(of: torch.Tensor, *shape: int) -> torch.Tensor:
    """The first numbers of a vector, in a shape."""
    return of[: math.prod(shape)].view(shape)


_CALLS = {
    "linear": _linear,
    "convolution": _convolution,
    "attention": _attention,
    "pointwise": _pointwise,
    "norm": _norm,
}
