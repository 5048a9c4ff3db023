"""Small models of every family, for tests that hold for all of them."""

import torch
import torchvision
import transformers
from timm.models.vision_transformer import VisionTransformer

from agflow.models import adapter_for


def of_timm(kind=VisionTransformer, depth=2, **overrides):
    return kind(
        **{
            "img_size": 32,
            "patch_size": 8,
            "num_classes": 10,
            "embed_dim": 32,
            "depth": depth,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            **overrides,
        }
    )


def of_torchvision(depth=2, **overrides):
    return torchvision.models.VisionTransformer(
        **{
            "image_size": 32,
            "patch_size": 8,
            "num_layers": depth,
            "num_heads": 4,
            "hidden_dim": 32,
            "mlp_dim": 64,
            "num_classes": 10,
            **overrides,
        }
    )


def of_transformers(kind="ViT", suffix="", depth=2, **overrides):
    config = getattr(transformers, f"{kind}Config")(
        **{
            "image_size": 32,
            "patch_size": 8,
            "num_hidden_layers": depth,
            "num_attention_heads": 4,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_labels": 10,
            **overrides,
        }
    )
    return getattr(transformers, f"{kind}ForImageClassification{suffix}")(config)


def made(build):
    """Draw weights that hide nothing: fresh biases, gates and classifiers are almost zero."""
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def images_for(model, count=4):
    return torch.randn(
        count, *adapter_for(model).input_size(model), generator=torch.Generator().manual_seed(1)
    )
