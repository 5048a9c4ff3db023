"""torchvision's VisionTransformer: LayerNorm, nn.MultiheadAttention and MLPs of two layers."""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportCallIssue=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import (
    EncoderBlock,
    MLPBlock,
    VisionTransformer,
    ViT_B_16_Weights,
)

from agflow.data.preprocessing import Preprocessing
from agflow.data.processors import preprocessing_like
from agflow.errors import InvalidValueError
from agflow.models.branches import Branches, Chain, chains_of, knows_block
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention, attend
from agflow.models.vision_transformer import VisionTransformerAdapter
from agflow.models.vit_family import Anatomy, Branch, Heads

_HIDDEN = LinearUnits({"0": 1}, "3")
_CHAINS = ("ln_1", "self_attention", "dropout"), ("ln_2", "mlp")


class TorchvisionVisionTransformer(VisionTransformerAdapter):
    """Adapter for torchvision's Vision Transformers.

    An attention that loses heads, or something inside them, becomes a
    :class:`agflow.models.self_attention.SelfAttention`: :class:`torch.nn.MultiheadAttention` ties
    the channels of the heads to those of the stream.
    """

    family = "torchvision_vit"
    models = "torchvision's VisionTransformer"
    library = "torchvision"
    rigid = True
    counts_stream = ("hidden_dim",)

    def recognises(self, model: nn.Module) -> bool:
        return _is_known(model)

    def anatomy(self, model: VisionTransformer) -> Anatomy:
        of_blocks = [
            _branches(f"encoder.layers.{name}", block)
            for name, block in model.encoder.layers.named_children()
        ]
        headless = isinstance(model.heads, nn.Identity)
        pre_logits = hasattr(model.heads, "pre_logits")
        classifier = "heads.pre_logits" if pre_logits else "heads.head"
        return Anatomy(
            patches=model.seq_length - 1,
            tokens=model.seq_length,
            patch="conv_proj",
            embeddings=("class_token", "encoder.pos_embedding"),
            positions="encoder.pos_embedding",
            attention=tuple(attention for attention, _ in of_blocks),
            mlp=tuple(mlp for _, mlp in of_blocks),
            before=(),
            after=(("encoder.ln", model.seq_length),),
            classifiers=() if headless else (classifier,),
            behind=("heads.head",) if pre_logits else (),
        )

    def chains(self, model: VisionTransformer) -> tuple[Chain, Chain]:
        return _CHAINS

    def hidden(self, mlp: nn.Module) -> LinearUnits:
        return _HIDDEN

    def projections(self, attention: nn.Module) -> tuple[str, ...]:
        return ("in_proj",)

    def projection(self, attention: nn.Module, name: str) -> nn.Module | SimpleNamespace:
        if isinstance(attention, nn.MultiheadAttention):  # it has the parameters, but no layer
            return SimpleNamespace(weight=attention.in_proj_weight, bias=attention.in_proj_bias)
        return attention.get_submodule(name)

    def parameters_of(self, attention: nn.Module, name: str) -> tuple[str, str | None]:
        if not isinstance(attention, nn.MultiheadAttention):
            return super().parameters_of(attention, name)
        biased = attention.in_proj_bias is not None
        return "in_proj_weight", "in_proj_bias" if biased else None

    def own_heads(self, attention: nn.MultiheadAttention) -> Heads:
        return Heads(attention.num_heads, *[attention.head_dim] * 3)

    def free(self, attention: nn.MultiheadAttention) -> SelfAttention:
        projection, output = (
            _linear_of(weight, bias).train(attention.training)
            for weight, bias in (
                (attention.in_proj_weight, attention.in_proj_bias),
                (attention.out_proj.weight, attention.out_proj.bias),
            )
        )
        return SelfAttention(
            {"in_proj": projection},
            {"out_proj": output},
            {},
            num_heads=attention.num_heads,
            head_dim=attention.head_dim,
            dropout=attention.dropout,
            in_tuple=True,
            training=attention.training,
        )

    def blocks(self, model: VisionTransformer) -> nn.Sequential:
        return model.encoder.layers

    def embed(self, model: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
        x_BTD = model._process_input(images)
        x_BTD = torch.cat([model.class_token.expand(len(x_BTD), -1, -1), x_BTD], 1)
        return model.encoder.dropout(x_BTD + model.encoder.pos_embedding)

    def classify(self, model: VisionTransformer, x_BTD: torch.Tensor) -> torch.Tensor:
        return model.heads(model.encoder.ln(x_BTD)[:, 0])

    def note_classes(self, model: VisionTransformer, count: int) -> None:
        model.num_classes = count

    @contextmanager
    def watchable(self, model: VisionTransformer) -> Iterator[None]:
        with ExitStack() as stack:
            for module in model.encoder.layers.modules():
                if isinstance(module, nn.MultiheadAttention):
                    stack.enter_context(_layers_called(module))
            yield

    def input_size(self, model: VisionTransformer) -> tuple[int, int, int]:
        return model.conv_proj.in_channels, model.image_size, model.image_size

    def set_image_size(self, model: VisionTransformer, height: int, width: int) -> None:
        if height != width:
            raise InvalidValueError(
                f"the image size is {height}x{width}, expected as high as wide: torchvision's "
                "VisionTransformer takes square images only"
            )
        super().set_image_size(model, height, width)

    def note_image_size(self, model: VisionTransformer, height: int, width: int) -> None:
        model.image_size = height
        model.seq_length = model.encoder.pos_embedding.shape[1]

    def preprocessing(
        self, model: VisionTransformer, folder: pathlib.Path | None = None
    ) -> Preprocessing:
        """That of the first weights of ViT-B/16: a model does not say which weights it has."""
        transforms = ViT_B_16_Weights.IMAGENET1K_V1.transforms()
        return preprocessing_like(transforms, self.input_size(model)[1:])

    def describe(self, model: VisionTransformer) -> dict[str, Any]:
        attention = next(
            (
                block.self_attention
                for block in model.encoder.layers
                if hasattr(block, "self_attention")
            ),
            None,
        )
        return {
            "arguments": {
                "image_size": model.image_size,
                "patch_size": model.patch_size,
                "hidden_dim": model.hidden_dim,
                "mlp_dim": model.mlp_dim,
                "dropout": model.encoder.dropout.p,
                "attention_dropout": 0.0 if attention is None else attention.dropout,
                "num_classes": self.class_count(model),
                "representation_size": model.representation_size,
            },
            "in_channels": model.conv_proj.in_channels,
            "norm_eps": model.encoder.ln.eps,
            **self.shapes(model),
        }

    def build(self, description: dict[str, Any]) -> VisionTransformer:
        arguments = dict(description["arguments"])
        heads = arguments.pop("num_heads", None)  # in experts saved before cuts inside heads
        if heads is not None:
            width = arguments["hidden_dim"] // heads
            description = {
                "head_dim": width,
                "inner": [
                    None if count == heads else [width, width] for count in description["heads"]
                ],
                **description,
            }
        whole, rest = divmod(arguments["hidden_dim"], description["head_dim"])
        model = VisionTransformer(
            **arguments,
            num_heads=1 if rest else whole,
            num_layers=len(description["heads"]),
            norm_layer=partial(nn.LayerNorm, eps=description["norm_eps"]),
        )
        model.conv_proj = nn.Conv2d(
            description["in_channels"], model.hidden_dim, model.patch_size, model.patch_size
        )
        if not arguments["num_classes"]:
            model.heads = nn.Identity()
        self.reshape(model, description)
        return model


def _branches(name: str, block: nn.Module) -> tuple[Branch | None, Branch | None]:
    """Attention and MLP of a block."""
    left = chains_of(block, _CHAINS)
    return tuple(
        Branch(
            name, chain, f"{name}.{chain[1]}", f"{name}.{chain[0]}", f"{name}.{chain[1]}.{reader}"
        )
        if chain in left
        else None
        for chain, reader in zip(_CHAINS, ("out_proj", "3"), strict=True)
    )


def _linear_of(weight_OI: nn.Parameter, bias_O: nn.Parameter | None) -> nn.Linear:
    """A linear layer with these very parameters."""
    linear = nn.utils.skip_init(
        nn.Linear, weight_OI.shape[1], weight_OI.shape[0], bias=bias_O is not None, device="meta"
    )
    linear.weight, linear.bias = weight_OI, bias_O
    return linear


@contextmanager
def _layers_called(attention: nn.MultiheadAttention) -> Iterator[None]:
    """Make ``attention`` call its ``out_proj``, and an ``in_proj``, so that hooks on them fire.

    PyTorch's own forward passes the weights to a fused function instead. ``in_proj`` is an identity
    on the projection's output. No attention weights are returned meanwhile.
    """
    before = vars(attention).get("forward")
    attention.in_proj = nn.Identity()
    attention.forward = partial(_forward, attention)
    try:
        yield
    finally:
        del attention.forward, attention.in_proj
        if before is not None:
            attention.forward = before


def _forward(
    attention: nn.MultiheadAttention, query: torch.Tensor, *_, **__
) -> tuple[torch.Tensor, None]:
    qkv = attention.in_proj(
        F.linear(query, attention.in_proj_weight, attention.in_proj_bias)
    ).chunk(3, -1)
    return attention.out_proj(
        attend(
            *qkv,
            attention.num_heads,
            attention.head_dim,
            attention.dropout if attention.training else 0.0,
        )
    ), None


def _is_known(model: nn.Module) -> bool:
    """Whether a model is torchvision's, and made of parts that compute as its own do."""
    return (
        type(model) is VisionTransformer
        and type(model.conv_proj) is nn.Conv2d
        and (
            type(model.heads) is nn.Identity
            or type(model.heads) is nn.Sequential
            and type(getattr(model.heads, "head", None)) is nn.Linear
        )
        and all(map(_knows_block, model.encoder.layers))
    )


def _knows_block(block: nn.Module) -> bool:
    return type(block) in (EncoderBlock, Branches) and knows_block(
        block, _CHAINS, nn.LayerNorm, _knows_attention, _knows_mlp
    )


def _knows_attention(attention: nn.Module) -> bool:
    if type(attention) is not nn.MultiheadAttention:
        return type(attention) is SelfAttention
    return (
        attention.batch_first
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _knows_mlp(mlp: nn.Module) -> bool:
    return type(mlp) is MLPBlock and type(mlp[1]) is nn.GELU and _HIDDEN.refusal(mlp) is None
