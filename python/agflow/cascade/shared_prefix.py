"""The first blocks that both experts of a cascade share, computed once for both."""

from __future__ import annotations

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.modes import preserve_training_mode
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models import adapter_for, split
from agflow.models.resolution import image_size


def shared_halves(
    light: nn.Module, heavy: nn.Module, blocks: int
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Split two experts behind the first blocks that they share.

    Parameters
    ----------
    blocks : number of first blocks that, with the embeddings, are the same in both, bit for bit

    Returns
    -------
    the common prefix, images to tokens, and the rest of the light and of the heavy expert, tokens
    to logits (:func:`agflow.models.split`)

    Raises
    ------
    InvalidValueError
        An expert has not so many blocks, they work at different image sizes, or the embeddings and
        these blocks are not the same in both, bit for bit.
    UnsupportedModelError
        No adapter handles an expert, or its adapter cannot split.

    Examples
    --------
    >>> import agflow, torch
    >>> heavy, _, _ = agflow.load_model("example")
    >>> prefix, light_rest, heavy_rest = agflow.cascade.shared_halves(heavy, heavy, blocks=2)
    >>> heavy_rest(prefix(torch.zeros(1, 1, 28, 28))).shape
    torch.Size([1, 10])
    """
    try:
        halves = split(light, blocks), split(heavy, blocks)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"the experts cannot share blocks: {error}; what works for any two models: give "
            "shared_blocks=0"
        ) from error
    if image_size(light) != image_size(heavy):
        sizes = ["x".join(map(str, image_size(model))) for model in (light, heavy)]
        raise InvalidValueError(
            f"the light expert takes images of {sizes[0]} pixels, the heavy one of {sizes[1]}, "
            "expected one image size for a shared prefix: give shared_blocks=0"
        )
    (light_prefix, light_rest), (prefix, heavy_rest) = halves
    difference = _difference(light_prefix, prefix, heavy)
    if difference:
        raise InvalidValueError(
            f"the experts do not share their embeddings and first {blocks} blocks: {difference}; "
            "neither prune nor fine-tune these blocks of the light expert, or share fewer"
        )
    return prefix, light_rest, heavy_rest


def _difference(light_prefix: nn.Module, prefix: nn.Module, heavy: nn.Module) -> str:
    """The first difference of two prefixes in words; "" for equal ones."""
    if light_prefix is prefix:  # of an export, whose experts have one file for it
        return ""
    mine, theirs = (module.state_dict() for module in (light_prefix, prefix))
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in mine or name not in theirs or not torch.equal(mine[name], theirs[name]):
            return f"{name.removeprefix('model.')} is not the same"
    weight = first_parameter(heavy)
    image = torch.randn(
        1, *adapter_for(heavy).input_size(heavy), generator=torch.Generator().manual_seed(0)
    ).to(weight)
    # Equal parameters may be used in different ways, such as another number of heads.
    with torch.no_grad(), preserve_training_mode(light_prefix, prefix):
        same = torch.equal(light_prefix.eval()(image), prefix.eval()(image))
    return "" if same else "with the same parameters they give other tokens"
