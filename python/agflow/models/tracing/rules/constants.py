"""Tensors that the code makes from numbers, and calls that only check."""

from __future__ import annotations

from agflow.models.tracing.axes import Reason, new
from agflow.models.tracing.call import Call, Value


def constant(call: Call) -> Value:
    """A tensor whose sizes stand in the code, so that what meets it stays."""
    reason = Reason(call.name, f"met by a constant of {call.name}")
    return [new(n, reason) for n in call.shape]


def check(_: Call) -> Value:
    """Reads what it checks, and changes nothing."""
    return None


RULES = {
    **{
        f"aten.{name}": constant
        for name in (
            "arange zeros ones full empty eye linspace scalar_tensor rand randn randint new_zeros "
            "new_ones new_full new_empty empty_strided new_empty_strided hann_window tensor"
        ).split()
    },
    **{
        f"aten.{name}": check
        for name in ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_size")
    },
}
