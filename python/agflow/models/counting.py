"""Multiply-accumulates of what a model runs, counted from its operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from agflow._utils.modes import preserve_training_mode
from agflow.errors import UnsupportedModelError

_PRODUCTS = {
    *("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot", "matmul", "trilinear"),
    *("convolution", "conv1d", "conv2d", "conv3d", "linear", "rnn", "lstm", "gru", "attention"),
}
"""Words in the names of operations that multiply matrices."""
_OTHER_KERNELS = ("quantized", "mkldnn", "onednn", "prepacked")
"""Namespaces of operations that stand for products under names of their own."""


def counted_macs(model: nn.Module, run: Callable[[], object], name: str) -> int:
    """Count the multiply-accumulates of ``run``, which calls the model in evaluation mode.

    Parameters
    ----------
    name : of the model, for errors

    Raises
    ------
    UnsupportedModelError
        The model does not compute in torch, or with operations that torch's counter leaves out.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.counting import counted_macs
    >>> layer = torch.nn.Conv2d(3, 8, 3)
    >>> counted_macs(layer, lambda: layer(torch.zeros(1, 3, 5, 5)), "layer")
    1944
    """
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    counter, missed = FlopCounterMode(display=False), _MissedProducts(flop_registry)
    with (
        preserve_training_mode(model),
        _constant(model),
        torch.no_grad(),
        _plain_operations(any(isinstance(module, nn.RNNBase) for module in model.modules())),
        missed,
        counter,
    ):
        model.eval()
        run()
    # Scripts that were optimised for a CPU run some products where nothing sees them.
    missed.names.update(
        "prim::MKLDNNGroup"
        for module in model.modules()
        if isinstance(module, torch.jit.ScriptModule) and "MKLDNN" in str(module.inlined_graph)
    )
    macs = counter.get_total_flops() // 2
    if macs and not missed.names:
        return macs
    found = (
        f"runs {', '.join(sorted(missed.names))}, which torch's counter leaves out"
        if missed.names
        else "runs no product that torch's counter sees"
    )
    raise UnsupportedModelError(
        f"the MACs of {name} cannot be counted: it {found}; give the costs of both "
        "experts, costs=(0.25, 1.0), or have them timed, costs='measured'"
    )


def macs_of_operation(operation: Any, arguments: tuple, named: dict[str, Any]) -> int:
    """Count the multiply-accumulates of one call of an operation.

    Parameters
    ----------
    operation : of torch.ops, such as ``torch.ops.aten.lstm.input``
    arguments, named : of the call, with tensors of the device meta in them

    Examples
    --------
    >>> import torch
    >>> from agflow.models.counting import macs_of_operation
    >>> x = torch.zeros(4, 8, device="meta")
    >>> macs_of_operation(torch.ops.aten.mm.default, (x, x.mT), {})
    128
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _plain_operations(recurrent=True), counter:
        operation(*arguments, **named)
    return counter.get_total_flops() // 2


def multiplies(operation: Any) -> bool:
    """Whether an operation of torch multiplies matrices, by its name.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.counting import multiplies
    >>> multiplies(torch.ops.aten.mm.default), multiplies(torch.ops.aten.relu.default)
    (True, False)
    """
    if not isinstance(operation, torch._ops.OpOverload):
        return False
    return not _PRODUCTS.isdisjoint(operation.name().partition("::")[2].split(".")[0].split("_"))


@contextmanager
def _constant(model: nn.Module) -> Iterator[None]:
    """Let no weight require gradients: the counter fails on modules that put out a view of one."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in trained:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


@contextmanager
def _plain_operations(recurrent: bool) -> Iterator[None]:
    """Let modules run the operations that the counter knows, and not fused or compiled ones.

    Recurrent layers run their products one by one where oneDNN does not run them whole.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast_path, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(onednn and not recurrent)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch._C._set_mkldnn_enabled(onednn)


class _MissedProducts(TorchDispatchMode):
    """Notes the operations that multiply matrices and that a registry of counts lacks."""

    def __init__(self, known: Any):
        super().__init__()
        self._known, self.names = known, set[str]()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        packet = operation._overloadpacket
        if packet not in self._known and (
            operation.namespace in _OTHER_KERNELS or multiplies(operation)
        ):
            self.names.add(str(packet))
        return operation(*args, **(kwargs or {}))
