"""Why a cut model does not run: the module, the line of its code, and the cause in words."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import traceback
from types import FrameType, TracebackType

import torch
from torch import nn

BY_INPUT = "reshapes by the width of its input"
_RESHAPES = "reshapes to a size that does not follow them"
_CAUSES = {
    "is invalid for input of size": _RESHAPES,
    "multiply up to the size of dim": _RESHAPES,
    "split_sizes": "splits by sizes that do not follow them",
    "must match the size of tensor": "combines them with a tensor of another width",
    "channels, but got": "gives a layer other channels than are left for it",
    "out of bounds": "looks up places that are gone",
}
"""By a part of torch's message, what the code does."""
_PLACES = {3: set("NnLlTt"), 4: {"W", "w", "width"}}
"""By number of axes, names of the last where that is none of channels, which then stand second."""
_LONGEST = 100
_TORCH = torch.__path__[0] + os.sep


def why_it_fails(model: nn.Module, error: Exception) -> str:
    """What the code of a cut model did when it failed, as a clause.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.tracing.failing import why_it_fails
    >>> class Rows(nn.Module):
    ...     def forward(self, x):
    ...         return x.reshape(-1, 4)
    >>> model = nn.Sequential(Rows())
    >>> try:
    ...     model(torch.zeros(3, 3))
    ... except RuntimeError as error:
    ...     why_it_fails(model, error)
    'the code of 0 reshapes to a size that does not follow them in `return x.reshape(-1, 4)`'
    """
    module, frame, line = _where(model, error.__traceback__)
    code = f"the code of {module}" if module else "its code"
    message = str(error).strip().partition("\n")[0]
    cause = next((words for part, words in _CAUSES.items() if part in message), None)
    if cause is None:
        return f"{code} raises {type(error).__name__}: {message}"[:200]
    statement, function = (None, None) if frame is None else _source(frame, line)
    if statement is None or function is None:
        return f"{code} {cause}"
    if cause is _RESHAPES and (width := _input_width(statement, function)):
        cause = f"{BY_INPUT}: {width}"
    return f"{code} {cause} in `{_short(ast.unparse(statement))}`"


def _where(model: nn.Module, trace: TracebackType | None) -> tuple[str, FrameType | None, int]:
    """The module in whose code a pass stopped, torch's own left out, and where in the code."""
    names = {id(module): name for name, module in model.named_modules()}
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(trace)
        if not frame.f_code.co_filename.startswith(_TORCH)
    ]
    called = [id(frame.f_locals.get("self")) for frame, _ in frames]
    inside = [at for at, caller in enumerate(called) if caller in names]
    if not inside:
        return "", None, 0
    return names[called[inside[-1]]], *frames[-1]


def _source(frame: FrameType, line: int) -> tuple[ast.stmt | None, ast.AST | None]:
    """The statement at a line and the function that it is in; None where there is no source."""
    around = [
        node
        for node in ast.walk(_tree(frame.f_code.co_filename))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    functions = [node for node in around if isinstance(node, ast.FunctionDef)]
    statements = [node for node in around if not hasattr(node, "body")]
    if not functions or not statements:
        return None, None
    return statements[-1], functions[-1]


@functools.lru_cache(maxsize=32)
def _tree(file: str) -> ast.Module:
    """The code of a file, or of a cell of a notebook; nothing where it cannot be read."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ast.Module([], [])


def _input_width(statement: ast.stmt, function: ast.AST) -> str | None:
    """The name of a number that a statement uses and that the function took for a tensor's width.

    Code does so by ``B, N, C = x.shape``, of maps by ``B, C, H, W = x.shape``.
    """
    used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    taken = (
        _width_taken(ast.unparse(node.targets[0]), ast.unparse(node.value))
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
    )
    return next((name for name in taken if name in used), None)


def _width_taken(target: str, value: str) -> str | None:
    """The name that an assignment gives the number of channels of a tensor; None where to none."""
    if value.endswith((".shape[-1]", ".size(-1)")):
        return target
    names = [name.strip("() ") for name in target.split(",")]
    if len(names) < 3 or not value.endswith((".shape", ".size()")):
        return None
    return names[1] if names[-1] in _PLACES.get(len(names), ()) else names[-1]


def _short(code: str) -> str:
    code = " ".join(code.split())
    return code if len(code) <= _LONGEST else f"{code[: _LONGEST - 1]}…"
