"""The rows of a least-squares fit: what a convolution or linear layer reads for one output each.

The rows of a convolution are its patches, as im2col lays them out.

Shape suffixes: B images, P positions of the output, C channels, H W the map, K kept inputs (of a
convolution channels times the kernel's height and width).
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

aten = torch.ops.aten


@dataclass(frozen=True)
class Patches:
    """How a layer's rows lie in its input.

    Attributes
    ----------
    kernel, stride, dilation : of a convolution; empty for a linear layer
    padding : left, right, top and bottom

    Examples
    --------
    >>> import torch
    >>> from agflow.pruning.patches import Patches
    >>> x = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> patches = Patches((2, 2), (1, 1), (1, 1), (0, 0, 0, 0))
    >>> patches.rows(x, torch.tensor([0]))[0, 3].tolist()
    [4.0, 5.0, 7.0, 8.0]
    >>> patches.rows(x, torch.tensor([0]), torch.tensor([[3]])).tolist()
    [[[4.0, 5.0, 7.0, 8.0]]]
    """

    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()

    @classmethod
    def of(cls, layer: fx.Node) -> Patches:
        """Those of a node of ``conv2d`` or ``linear``."""
        if layer.target is aten.linear.default:
            return cls()
        kernel = tuple(layer.args[1].meta["val"].shape[2:])
        given = dict(zip(("stride", "padding", "dilation"), layer.args[3:6], strict=False))
        given.update(layer.kwargs)
        stride, dilation = (_pair(given.get(name, 1)) for name in ("stride", "dilation"))
        padding = given.get("padding", 0)
        if padding == "same":
            spare = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            sides = tuple(side for s in reversed(spare) for side in (s // 2, s - s // 2))
        else:
            height, width = (0, 0) if padding == "valid" else _pair(padding)
            sides = (width, width, height, height)
        return cls(kernel, stride, dilation, sides)

    def rows(
        self, x: torch.Tensor, keep_C: torch.Tensor, positions_BP: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The rows [B, P, K] of a batch.

        Parameters
        ----------
        x : the layer's input, [B, C, H, W], or [B, P, C] of a linear one
        keep_C : inputs that are kept, int64
        positions_BP : of each image, the positions that are wanted, int64; all when None
        """
        if not self.kernel:
            rows_BPK = x[..., keep_C]
            if positions_BP is None:
                return rows_BPK
            return rows_BPK.take_along_dim(positions_BP[:, :, None], 1)
        x = F.pad(x[:, keep_C], self.padding)
        if positions_BP is None:
            return F.unfold(x, self.kernel, self.dilation, 0, self.stride).transpose(1, 2)
        return self._gathered(x, positions_BP)

    def _gathered(self, x_BCHW: torch.Tensor, positions_BP: torch.Tensor) -> torch.Tensor:
        """The patches at some positions, without laying out the others."""
        width = x_BCHW.shape[3] - self.dilation[1] * (self.kernel[1] - 1)
        columns = (width - 1) // self.stride[1] + 1
        top_BP = positions_BP // columns * self.stride[0]
        left_BP = positions_BP % columns * self.stride[1]
        image_BP = torch.arange(len(x_BCHW), device=x_BCHW.device)[:, None].expand_as(top_BP)
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        offsets = [
            (y * self.dilation[0], x * self.dilation[1])
            for y in range(self.kernel[0])
            for x in range(self.kernel[1])
        ]
        taken = [x_BHWC[image_BP, top_BP + y, left_BP + x] for y, x in offsets]
        return torch.stack(taken, -1).flatten(2)


def _pair(value: int | list[int]) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return values[0], values[-1]
