"""The classifier of a model, found by watching a pass.

Shape suffixes: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from agflow._utils.hooks import temporary_hooks
from agflow.errors import UnsupportedModelError
from agflow.models.outputs import has_logits, kind_of_output, logits_of

_LINEAR = nn.Linear, nn.Conv2d
_HIDDEN_ACTIVATIONS = torch.relu, torch.tanh, F.gelu
Ran = list[tuple[str, nn.Module, Any]]
"""Layers with parameters in the order in which they ran: name, module and output."""


@dataclass(frozen=True)
class Head:
    """The classifier of a model, as one pass over images shows it.

    Attributes
    ----------
    layers : names of the linear layers that give the logits; none where they are computed otherwise
    classes : how many; 0 of a model without a classifier, which puts out features
    output : what the model puts out, in words
    """

    layers: tuple[str, ...]
    classes: int
    output: str

    def check(self, name: str, need: str, cure: str) -> None:
        """Check that there is a classifier.

        Parameters
        ----------
        name : of the model
        need : what needs one, as a clause
        cure : for models without one

        Raises
        ------
        UnsupportedModelError
            There is none.
        """
        if not self.classes:
            raise UnsupportedModelError(
                f"{name} has no classifier, it puts out features ({self.output}), and "
                f"{need}: {cure}"
            )


def watched(model: nn.Module, run: Callable[[], Any]) -> tuple[Any, Head]:
    """Watch a pass of a model; returns its output and its classifier (see :func:`head_of`).

    Parameters
    ----------
    run : runs the model once, in the mode that it has

    Examples
    --------
    >>> import torch
    >>> from agflow.models.classifier import watched
    >>> model = torch.nn.Conv2d(3, 8, 2)
    >>> output, head = watched(model, lambda: model(torch.zeros(1, 3, 4, 4)))
    >>> output.shape, head.classes
    (torch.Size([1, 8, 3, 3]), 0)
    """
    ran: Ran = []
    with temporary_hooks(_noting(model, ran)):
        output = run()
    said = kind_of_output(output)
    try:
        logits = logits_of(output)
    except UnsupportedModelError:
        return output, Head((), 0, said)
    if has_logits(output):
        return output, Head(_last_layers(ran, logits.shape[-1]), logits.shape[-1], said)
    if logits.ndim != 2 or getattr(model, "num_classes", None) == 0:
        return output, Head((), 0, said)
    layers = _last_layers(ran, logits.shape[-1])
    hidden = _is_hidden(logits, ran, layers)
    return output, Head((), 0, said) if hidden else Head(layers, logits.shape[-1], said)


def _noting(model: nn.Module, ran: Ran) -> Iterator[RemovableHandle]:
    """Hooks that note the layers which run; compiled modules, which these recompile, get none."""
    if any(_is_compiled(module) for module in model.modules()):
        return

    def hook_on(name: str, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(lambda *called: ran.append((name, module, called[-1])))

    for name, module in model.named_modules():
        if next(module.children(), None) is None and next(module.parameters(), None) is not None:
            yield hook_on(name, module)


def _is_compiled(module: nn.Module) -> bool:
    return (
        isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module, "_orig_mod")
    )


def _last_layers(ran: Ran, classes: int) -> tuple[str, ...]:
    """The linear layers with one output a class behind which no other layer ran but a norm."""
    found: list[str] = []
    behind = ran[:-1] if ran and _is_norm(ran[-1][1]) and ran[-1][2].ndim == 2 else ran
    for name, module, _ in reversed(behind):
        if not isinstance(module, _LINEAR) or len(module.weight) != classes:
            break
        found.insert(0, name)
    return tuple(found)


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _is_hidden(output_BK: torch.Tensor, ran: Ran, layers: tuple[str, ...]) -> bool:
    """Whether an output is the hidden state behind the layer that ran last."""
    if not ran:
        return False
    _, module, value = ran[-1]
    if layers:
        if not isinstance(value, torch.Tensor) or value.shape != output_BK.shape:
            return False
        # Values that an activation leaves as they are may be logits, all of them positive.
        changed = not torch.equal(value, output_BK)
        return changed and any(torch.equal(act(value), output_BK) for act in _HIDDEN_ACTIVATIONS)
    channels = len(next(module.parameters()))
    hides = _is_norm(module) or isinstance(module, nn.Conv2d)
    return hides and channels > 1 and output_BK.shape[1] % channels == 0
