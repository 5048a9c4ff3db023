"""Small cascades that escalate a part of a batch."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import agflow
from agflow.cascade.priors import priors
from agflow.data.preprocessing import Preprocessing
from agflow.models import adapter_for, at_image_size

IMAGES, ESCALATED = 24, 9


@pytest.fixture(scope="session")
def preprocessing():
    return Preprocessing((32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "bicubic", 0.9)


@pytest.fixture(scope="session")
def x():
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def experts():
    """A heavy expert, and a light one that lost a part behind their common first block."""
    torch.manual_seed(0)
    heavy = VisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=32, depth=2, num_heads=2
    ).eval()
    light = copy.deepcopy(heavy)
    adapter = adapter_for(light)
    layer = next(layer for layer in adapter.layers(heavy) if layer.name == "blocks.1.mlp")
    adapter.cut(light, layer, torch.arange(64))
    return light, heavy


@pytest.fixture(scope="session")
def make_cascade(experts, x):
    """Make a cascade that escalates ``ESCALATED`` of the images ``x``."""

    def make(light=None, answers="heavy", prior="max_probability", **how):
        light, heavy = light or experts[0], experts[1]
        labels = torch.randint(10, (IMAGES,), generator=torch.Generator().manual_seed(2))
        router = agflow.calibrate_router(
            agflow.predict(light, heavy, [(x, labels)]), escalation=0.9, prior=prior
        )
        with torch.no_grad():
            certainty = np.sort(priors(light(x))[1][prior]).astype(np.float64)
        forced = dataclasses.replace(
            router,
            threshold=float(certainty[ESCALATED - 1 : ESCALATED + 1].mean()),
            answers=answers,
            light_weight=0.4 if answers == "ensemble" else 0.0,
        )
        return agflow.Cascade(light, heavy, forced, **how)

    return make


@pytest.fixture(scope="session")
def kinds(make_cascade, experts):
    """Cascades of every kind by name."""
    return {
        "plain": make_cascade(),
        "by margin": make_cascade(prior="margin"),
        "shared prefix": make_cascade(shared_blocks=1),
        "ensemble": make_cascade(answers="ensemble", shared_blocks=1),
        "fewer pixels": make_cascade(at_image_size(experts[1], 16)),
        "in pieces": make_cascade(max_batch=5),
        "prefix in pieces": make_cascade(shared_blocks=1, max_batch=5),
    }
