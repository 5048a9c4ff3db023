"""The classifier of a model, found by watching a pass.

Shape suffixes: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agflow.errors import UnsupportedModelError
from agflow.models.outputs import has_logits, kind_of_output, logits_of
from agflow.models.trails import GATED, Trail, Trails

_HIDDEN = set(
    "relu relu6 hardtanh leaky_relu prelu prelu_kernel elu celu selu gelu silu mish hardswish tanh "
    "threshold rrelu rrelu_with_noise rrelu_with_noise_functional clamp clamp_min maximum glu "
    "hardshrink softshrink tanhshrink linalg_vector_norm norm".split()
) | {GATED}
"""What runs on features: activations, and what divides them by their length."""
_NEUTRAL = set(
    "view unsafe_view reshape permute transpose t numpy_T expand squeeze unsqueeze flatten "
    "unflatten slice select split split_with_sizes chunk unbind alias detach clone copy to to_copy "
    "contiguous cat stack index index_select gather add sub rsub mul div neg mean sum "
    "adaptive_avg_pool1d adaptive_avg_pool2d avg_pool2d max_pool2d max_pool2d_with_indices amax "
    "max adaptive_max_pool2d native_dropout dropout feature_dropout roll lift_fresh "
    "softmax log_softmax".split()
)
"""What runs on logits as well as on features: it moves, scales, adds, averages or drops them."""


@dataclass(frozen=True)
class Head:
    """The classifier of a model, as one pass over images shows it.

    Attributes
    ----------
    layers : names of the linear layers that give the logits; none where they are computed otherwise
    classes : how many; 0 of a model without a classifier, which puts out features
    output : what the model puts out, in words
    doubt : why what it puts out could as well be features; empty where it cannot
    """

    layers: tuple[str, ...]
    classes: int
    output: str
    doubt: str = ""

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
                f"{need}: {cure}; if these are logits, say so by model.num_classes, their number"
            )

    def check_sure(self, name: str) -> None:
        """Check that it is plain whether the model puts out logits or features.

        Parameters
        ----------
        name : of the model

        Raises
        ------
        UnsupportedModelError
            It is not.
        """
        if self.doubt:
            raise UnsupportedModelError(
                f"{name} puts out {self.output}, which may be logits or features, since "
                f"{self.doubt}: set model.num_classes to {self.classes} if these are logits, to 0 "
                "if they are features"
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
    trails = Trails()
    if any(map(_is_compiled, model.modules())):  # hooks recompile it
        output = run()
    else:
        with trails.of_passes(model):
            output = run()
    said = kind_of_output(output)
    try:
        logits = logits_of(output)
    except UnsupportedModelError:
        return output, Head((), 0, said)
    declared = getattr(model, "num_classes", None)
    if not has_logits(output) and (logits.ndim != 2 or declared == 0):
        return output, Head((), 0, said)
    classes, trail = logits.shape[-1], trails.of(logits)
    if trail is None:
        return output, Head((), classes, said)
    layers = _linear_layers(trails, trail, classes)
    if has_logits(output) or declared == classes or _are_probabilities(logits):
        return output, Head(layers, classes, said)
    hidden, doubt = _judged(trails, trail, classes)
    return output, Head((), 0, said) if hidden else Head(layers, classes, said, doubt)


def _is_compiled(module: nn.Module) -> bool:
    return (
        isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module, "_orig_mod")
    )


def _linear_layers(trails: Trails, trail: Trail, classes: int) -> tuple[str, ...]:
    """The layers that give the logits, in their order; none if other products are among them."""
    products = [trails.products[i] for i in sorted(trail.products)]
    plain = all(
        product.layer is not None and product.channels == classes for product in products
    ) and trail.products.isdisjoint(trails.read)
    return tuple(product.name for product in products) if plain else ()


def _are_probabilities(output_BK: torch.Tensor) -> bool:
    """Whether each row is a distribution, or the logarithm of one."""
    rows_BK = output_BK.detach().double()
    if rows_BK.shape[1] < 2:
        return False
    if not (rows_BK >= 0).all():
        rows_BK = rows_BK.exp()
    sums_B = rows_BK.sum(1)
    return bool(torch.allclose(sums_B, torch.ones_like(sums_B), atol=0.01))


def _judged(trails: Trails, trail: Trail, classes: int) -> tuple[bool, str]:
    """Whether an output [B, K] is features; where it is logits, the reason for a doubt."""
    products = [trails.products[i] for i in trail.products]
    maps = [product for product in products if product.is_map]
    norms = {name for name in trail.operators if name.endswith("_norm")} - _HIDDEN
    behind = trail.operators - _NEUTRAL - norms
    active = bool(behind & _HIDDEN)
    if not trail.products.isdisjoint(trails.read):  # the stream around a block
        return True, ""
    whole_maps = any(classes % product.channels == 0 for product in maps)
    if whole_maps and (norms or any(product.channels != classes for product in maps)):
        return True, ""
    if active and not maps:
        return True, ""
    if behind or norms:
        found = " and ".join(sorted(behind or norms))
        return False, f"{found} follows its last layer with weights"
    wide = [product.channels for product in products if product.channels != classes]
    return False, f"its last layer with weights has {wide[0]} outputs" if wide else ""
