"""Einstein sums: axes that share a letter have the same units."""

from __future__ import annotations

from collections.abc import Sequence

from agflow.models.tracing.axes import Dim, flat
from agflow.models.tracing.call import Call, Value


def labels_of(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The label of each axis of the operands, and of the result.

    Axes under an ellipsis are counted from the last, ``"...0"``, so that those of several operands
    meet as they broadcast.

    Examples
    --------
    >>> from agflow.models.tracing.rules.einsum import labels_of
    >>> labels_of("...d,dk->...k", (3, 2))
    ([['...1', '...0', 'd'], ['d', 'k']], ['...1', '...0', 'k'])
    """
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    operands = inputs.split(",")
    named = [len(operand.replace("...", "")) for operand in operands]
    hidden = [rank - count for rank, count in zip(ranks, named, strict=True)]
    found = [_axes(operand, count) for operand, count in zip(operands, hidden, strict=True)]
    if not arrow:  # the letters that stand once, in order of the alphabet
        letters = [label for labels in found for label in labels if len(label) == 1]
        once = sorted(label for label in set(letters) if letters.count(label) == 1)
        result = "..." * ("..." in inputs) + "".join(once)
    return found, _axes(result, max(hidden))


def _axes(term: str, hidden: int) -> list[str]:
    before, ellipsis, behind = term.partition("...")
    between = [f"...{i}" for i in reversed(range(hidden))] if ellipsis else []
    return [*before, *between, *behind]


def einsum(call: Call) -> Value:
    """What is summed over stays, for no mask leaves out a unit of two computed tensors."""
    operands = [call.dims_of(node) for node in call["tensors"]]
    inputs, result = labels_of(call["equation"], [len(dims) for dims in operands])
    found: dict[str, Dim] = {}
    for dims, labels in zip(operands, inputs, strict=True):
        for dim, label in zip(dims, labels, strict=True):
            if not flat(found.setdefault(label, dim)):
                found[label] = dim
            elif flat(dim):
                call.unify(found[label], dim)
    call.freeze(*(dim for label, dim in found.items() if label not in result))
    return [found[label] for label in result]


RULES = {"aten.einsum": einsum}
