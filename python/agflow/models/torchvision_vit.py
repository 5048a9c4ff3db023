"""torchvision's VisionTransformer: blocks of LayerNorm, nn.MultiheadAttention and an MLP of two layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models.vision_transformer import EncoderBlock, MLPBlock, VisionTransformer

from agflow.models.adapter import Adapter, PrunableLayer, channels_of, macs_of_layers
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention, keep_heads, output_layer_called

_HIDDEN = LinearUnits({"0": 1}, "3")


class TorchvisionVisionTransformer(Adapter):
    """Adapter for torchvision's Vision Transformers.

    An attention that loses heads becomes a :class:`agflow.models.self_attention.SelfAttention`.
    """

    family = "torchvision_vit"
    models = "torchvision's VisionTransformer"

    def recognises(self, model: nn.Module) -> bool:
        return isinstance(model, VisionTransformer)

    def refusal(self, model: VisionTransformer) -> str | None:
        return next(_refusals(model), None)

    def layers(self, model: VisionTransformer) -> list[PrunableLayer]:
        found = []
        for name, block in model.encoder.layers.named_children():
            name = f"encoder.layers.{name}"
            found.append(_heads(f"{name}.self_attention", block.self_attention, model.seq_length))
            found.append(_HIDDEN.layer(f"{name}.mlp", "mlp", block.mlp, tokens=model.seq_length))
        return found

    def weights(self, model: VisionTransformer, layer: PrunableLayer) -> list[tuple[torch.Tensor, int]]:
        module = model.get_submodule(layer.name)
        if layer.group == "mlp":
            return _HIDDEN.weights(module)
        return [*((rows_AD, 0) for rows_AD in module.in_proj_weight.chunk(3)), (module.out_proj.weight, 1)]

    def cut(self, model: VisionTransformer, layer: PrunableLayer, keep_U: torch.Tensor) -> None:
        module = model.get_submodule(layer.name)
        if layer.group == "mlp":
            _HIDDEN.cut(module, channels_of(keep_U, layer.unit_width))
        else:
            block = model.get_submodule(layer.name.rpartition(".")[0])
            block.self_attention = keep_heads(module, keep_U)

    @contextmanager
    def watchable(self, model: VisionTransformer) -> Iterator[None]:
        with ExitStack() as stack:
            for block in model.encoder.layers:
                if isinstance(block.self_attention, nn.MultiheadAttention):
                    stack.enter_context(output_layer_called(block.self_attention))
            yield

    def input_size(self, model: VisionTransformer) -> tuple[int, int, int]:
        return model.conv_proj.in_channels, model.image_size, model.image_size

    def macs(self, model: VisionTransformer) -> int:
        patches = (model.seq_length - 1) * model.conv_proj.weight.numel()
        classifier = sum(module.weight.numel() for module in model.heads if isinstance(module, nn.Linear))
        return patches + macs_of_layers(self.layers(model)) + classifier

    def describe(self, model: VisionTransformer) -> dict[str, Any]:
        first = model.encoder.layers[0]
        return {
            "arguments": {
                "image_size": model.image_size, "patch_size": model.patch_size, "hidden_dim": model.hidden_dim,
                "num_heads": model.hidden_dim // first.self_attention.head_dim, "mlp_dim": model.mlp_dim,
                "dropout": model.encoder.dropout.p, "attention_dropout": first.self_attention.dropout,
                "num_classes": model.heads.head.out_features, "representation_size": model.representation_size,
            },
            "in_channels": model.conv_proj.in_channels,
            "norm_eps": first.ln_1.eps,
            "heads": [block.self_attention.num_heads for block in model.encoder.layers],
            "mlp": [_HIDDEN.channels(block.mlp) for block in model.encoder.layers],
        }

    def build(self, description: dict[str, Any]) -> VisionTransformer:
        arguments = description["arguments"]
        model = VisionTransformer(**arguments, num_layers=len(description["heads"]),
                                  norm_layer=partial(nn.LayerNorm, eps=description["norm_eps"]))
        model.conv_proj = nn.Conv2d(description["in_channels"], model.hidden_dim, model.patch_size, model.patch_size)
        for block, heads, hidden in zip(model.encoder.layers, description["heads"], description["mlp"], strict=True):
            if heads != arguments["num_heads"]:
                block.self_attention = SelfAttention(block.self_attention, heads)
            _HIDDEN.resize(block.mlp, hidden)
        return model


def _heads(name: str, attention: nn.MultiheadAttention | SelfAttention, tokens: int) -> PrunableLayer:
    width, dim = attention.head_dim, attention.out_proj.out_features
    macs = tokens * width * (4 * dim + 2 * tokens)
    params = width * 4 * dim + (0 if attention.in_proj_bias is None else 3 * width)
    return PrunableLayer(name, "heads", attention.num_heads, width, macs, params, f"{name}.out_proj")


def _refusals(model: VisionTransformer) -> Iterator[str]:
    """Every reason against ``model``, the most telling first; later ones may rely on earlier ones not holding."""
    if type(model) is not VisionTransformer:
        yield f"it is a subclass, which may compute something else; expected {TorchvisionVisionTransformer.models} itself"
    if type(model.conv_proj) is not nn.Conv2d:
        yield "the patch embedding must be one convolution: convolutional stems are not supported"
    if type(model.heads) is not nn.Sequential or type(getattr(model.heads, "head", None)) is not nn.Linear:
        yield "the classifier must be model.heads with a torch.nn.Linear named head at its end: replace model.heads.head, not model.heads"
    for name, block in model.encoder.layers.named_children():
        for reason in _block_refusals(block):
            yield f"encoder.layers.{name}: {reason}"


def _block_refusals(block: nn.Module) -> Iterator[str]:
    if type(block) is not EncoderBlock:
        yield f"{type(block).__name__} is not supported, expected torchvision's EncoderBlock"
    attention, mlp = block.self_attention, block.mlp
    if type(attention) not in (nn.MultiheadAttention, SelfAttention):
        yield f"attention of class {type(attention).__name__} is not supported, expected torch.nn.MultiheadAttention"
    if type(attention) is nn.MultiheadAttention and (not attention.batch_first or attention.in_proj_weight is None
                                                     or attention.bias_k is not None or attention.add_zero_attn):
        yield "self_attention must be batch first with one input projection and without added key and value rows"
    if type(mlp) is not MLPBlock or type(mlp[1]) is not nn.GELU:
        yield f"an MLP of class {type(mlp).__name__} is not supported, expected torchvision's MLPBlock with GELU"
    if type(block.ln_1) is not nn.LayerNorm:
        yield f"a norm of class {type(block.ln_1).__name__} is not supported, expected torch.nn.LayerNorm"
    reason = _HIDDEN.refusal(mlp)
    if reason is not None:
        yield f"mlp.{reason}"
