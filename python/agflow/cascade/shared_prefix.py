"""The first blocks that a light and a heavy expert have in common, computed once for both."""

from __future__ import annotations

import torch
from torch import nn

from agflow._utils.modes import preserve_training_mode
from agflow.errors import InvalidValueError
from agflow.models import adapter_for, split
from agflow.models.resolution import image_size


def shared_halves(
    light: nn.Module, heavy: nn.Module, blocks: int
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The common prefix, images to tokens, and the rest of either expert, tokens to logits (:func:`agflow.models.split`).

    Raises
    ------
    InvalidValueError
        An expert has not so many blocks, they work at different image sizes, or the embeddings and these blocks are not
        the same in both, bit for bit.
    UnsupportedModelError
        No adapter handles an expert, or its adapter cannot split.
    """
    if image_size(light) != image_size(heavy):
        sizes = ["x".join(map(str, image_size(model))) for model in (light, heavy)]
        raise InvalidValueError(
            f"the light expert looks at {sizes[0]} pixels, the heavy one at {sizes[1]}: a shared prefix needs one image size, "
            "so give shared_blocks=0"
        )
    (light_prefix, light_rest), (prefix, heavy_rest) = split(light, blocks), split(heavy, blocks)
    difference = _difference(light_prefix, prefix, heavy)
    if difference:
        raise InvalidValueError(
            f"the experts do not share their embeddings and first {blocks} blocks: {difference}; keep these blocks as they are "
            "when the light expert is cut and fine-tuned, or share fewer"
        )
    return prefix, light_rest, heavy_rest


def _difference(light_prefix: nn.Module, prefix: nn.Module, heavy: nn.Module) -> str:
    """Where two prefixes are not the same; "" for equal ones."""
    mine, theirs = (module.state_dict() for module in (light_prefix, prefix))
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in mine or name not in theirs or not torch.equal(mine[name], theirs[name]):
            return f"{name.removeprefix('model.')} is not the same"
    weight = next(heavy.parameters())
    image = torch.randn(
        1, *adapter_for(heavy).input_size(heavy), generator=torch.Generator().manual_seed(0)
    ).to(weight)
    with (
        torch.no_grad(),
        preserve_training_mode(light_prefix, prefix),
    ):  # equal parameters may be used in different ways
        same = torch.equal(light_prefix.eval()(image), prefix.eval()(image))
    return "" if same else "with the same parameters they give other tokens"
