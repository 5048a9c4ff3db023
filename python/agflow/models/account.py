"""The account of a model, taken before anything runs: it is what its adapter takes it for.

Shape suffixes: B images, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.hooks import CAPTURE_NOTE, temporary_hooks
from agflow._utils.modes import preserve_training_mode
from agflow.errors import UnsupportedModelError
from agflow.models.adapter import Adapter
from agflow.models.copying import copy_of, own_methods
from agflow.models.families.origins import note_origin
from agflow.models.outputs import whole_output
from agflow.models.registry import adapter_for, build, describe
from agflow.models.resizing import Resize

_IMAGES = 2
# On the CPU the same operations on the same weights give the same bits.
_TOLERANCE_ELSEWHERE = 1e-3  # of the largest logit


def examined(model: nn.Module) -> Adapter:
    """Find the adapter of ``model`` and check that the model is what the adapter takes it for.

    A second model is built from the description of the first and takes its very parameters (no
    memory is copied). The two must give the same logits for random images; otherwise something is
    in the model that a cut, a copy or a saved expert would lose without a word: a hook that changes
    outputs, a forward of a module's own, a layer or a number changed by hand. Of a model that no
    family declares the second is a copy without hooks and such forwards; where it is from is noted.

    Raises
    ------
    UnsupportedModelError
        As :func:`agflow.models.adapter_for`; or the model is no such thing. The message names the
        module.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models.account import examined
    >>> examined(agflow.load_model("example")[0]).family
    'timm_vit'
    """
    adapter = adapter_for(model)
    reason = _of_outputs(adapter, model)
    if reason is not None:
        raise UnsupportedModelError(f"{type(model).__name__} is not supported: {reason}")
    return adapter


def check_values(model: nn.Module) -> None:
    """Check that the parameters of ``model`` have values.

    Raises
    ------
    UnsupportedModelError
        A parameter is on the meta device.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models.account import check_values
    >>> check_values(agflow.load_model("example")[0])
    """
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta":
            raise UnsupportedModelError(
                f"{type(model).__name__} is not supported: {name} is on the meta device and has no "
                "values: load the weights first"
            )


def _of_outputs(adapter: Adapter, model: nn.Module) -> str | None:
    """Why the model is not the one that its description builds; None when it is."""
    if adapter.any_size:
        note_origin(model)
        twin = _bare_copy(model)
    else:
        with torch.device("meta"):
            twin = build(describe(model))
        reason = _other_shapes(model, twin)
        if reason is not None:
            return reason
        twin.requires_grad_(False)  # tensors made in inference mode take no flag
        twin.load_state_dict(model.state_dict(), assign=True)
    twin.eval()
    images = torch.randn(
        _IMAGES, *adapter.input_size(model), generator=torch.Generator().manual_seed(0)
    ).to(first_parameter(model))
    with torch.no_grad(), preserve_training_mode(model):
        model.eval()
        try:
            logits_BK, twins_BK = (whole_output(each(images)) for each in (model, twin))
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever is in the model
            return (
                f"it does not run on images of {list(images.shape[1:])}, {images.dtype} "
                f"({_first_line(error)}): {_cure(adapter, model)}"
            )
        if _same(logits_BK, twins_BK):
            return None
        return _difference(model, twin, images)


def _bare_copy(model: nn.Module) -> nn.Module:
    """A copy that holds the same tensors, and does only what the classes of its modules do."""
    tensors = (*model.parameters(), *model.buffers())
    twin = copy_of(model, {id(tensor): tensor for tensor in tensors})
    for module in twin.modules():
        vars(module).pop(CAPTURE_NOTE, None)
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if not isinstance(hook, Resize)]:
                del hooks[key]
    return twin


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cure(adapter: Adapter, model: nn.Module) -> str:
    dtypes = {str(parameter.dtype) for parameter in model.parameters()}
    if len(dtypes) > 1:
        return f"its parameters are {' and '.join(sorted(dtypes))}: call model.float()"
    if adapter.any_size:
        return "give it images of the channels and the size that it takes"
    return "check what was changed in it by hand"


def _other_shapes(model: nn.Module, twin: nn.Module) -> str | None:
    found = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    expected = {name: list(tensor.shape) for name, tensor in twin.state_dict().items()}
    name = next(
        (name for name in {**expected, **found} if found.get(name) != expected.get(name)), None
    )
    if name is None:
        return None
    if name not in found:
        return (
            f"{name} is missing, expected one of shape {expected[name]} as in other such models: "
            "set it (a bias to zeros)"
        )
    if name not in expected:
        return f"{name} is in it, and other such models have none: take it out"
    return (
        f"{name} has shape {found[name]}, expected {expected[name]} after its other sizes: make "
        "the model as its library does"
    )


def _same(x: torch.Tensor, y: torch.Tensor) -> bool:
    if x.device.type == "meta":  # no values
        return x.shape == y.shape
    tolerance = 0.0 if x.device.type == "cpu" else _TOLERANCE_ELSEWHERE * float(y.abs().max())
    return x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True)


def _difference(model: nn.Module, twin: nn.Module, images: torch.Tensor) -> str:
    """Name the first module that gives another output than its twin, or what sits around it."""
    outputs, twins = _outputs(model, images), _outputs(twin, images)
    where = next(
        (name for name in outputs if name not in twins or not _same(outputs[name], twins[name])), ""
    )
    path = where.split(".") if where else []
    for depth in range(len(path), -1, -1):
        name = ".".join(path[:depth])
        reason = _own_behaviour(name or "the model", model.get_submodule(name))
        if reason is not None:
            return reason
    module = model.get_submodule(where)
    return (
        f"{where or 'the model'} ({type(module).__name__}) computes something else than one made "
        "from its sizes: set it back to what its library makes"
    )


def _outputs(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs of all modules, by name, in the order in which they returned."""
    outputs: dict[str, torch.Tensor] = {}

    def record(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
            if isinstance(first, torch.Tensor):
                outputs.setdefault(name, first.clone())

        return hook

    with temporary_hooks(
        module.register_forward_hook(record(name)) for name, module in model.named_modules()
    ):
        model(images)
    return outputs


def _own_behaviour(name: str, module: nn.Module) -> str | None:
    """What a module has that its class has not and that may change what it computes."""
    methods = own_methods(module)
    if methods and hasattr(module, "_hf_hook"):
        return (
            f"{name} has hooks of accelerate: call "
            "accelerate.hooks.remove_hook_from_module(model, recurse=True) first"
        )
    if methods:
        return (
            f"{name} has a {methods[0]} of its own, which changes what it computes: delete it "
            f"first (del module.{methods[0]})"
        )
    for when, hooks in (("pre-", module._forward_pre_hooks), ("", module._forward_hooks)):
        for hook in hooks.values():
            if not isinstance(hook, Resize):
                kind = getattr(hook, "__qualname__", type(hook).__name__)
                return (
                    f"{name} has a forward {when}hook ({kind}) that changes what it computes: "
                    "remove it first (its handle's remove())"
                )
    return None
