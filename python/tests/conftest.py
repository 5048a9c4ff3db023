"""Models, images, plans and the shipped example: fixtures that tests of several rooms share."""

import json
import os
import pathlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import DataLoader, Subset

import agflow
from agflow.data.datasets import load_dataset
from agflow.models import adapter_for, count_macs, count_params, model_name
from agflow.models.load import load_model
from agflow.pruning.planning import Plan

VARIANTS = {
    "class_token": {},
    "no_qkv_bias": {"qkv_bias": False},
    "average_pool": {"global_pool": "avg"},
    "no_class_token": {"global_pool": "avg", "class_token": False},
    "layer_scale": {"init_values": 0.1},
    "registers": {"reg_tokens": 3, "no_embed_class": True},
    "qk_norm": {"qk_norm": True},
    "no_bias": {"proj_bias": False, "qkv_bias": False},
    "pre_norm": {"pre_norm": True, "act_layer": "quick_gelu"},
}


REQUEST = {
    "pruning_ratio": 0.5,
    "macs": "",
    "params": "",
    "latency_ms": 0,
    "widths": "uniform",
    "joint": False,
    "floor": 0,
    "round_to": 1,
    "groups": [],
    "ignored_layers": [],
}


def small_vit(**overrides):
    torch.manual_seed(0)
    model = VisionTransformer(
        **{
            "img_size": 32,
            "patch_size": 8,
            "num_classes": 10,
            "embed_dim": 48,
            "depth": 3,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            **overrides,
        }
    )
    with torch.no_grad():  # fresh biases are zero and would hide mistakes
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(params=VARIANTS)
def vit(request):
    """A small Vision Transformer of every supported kind."""
    return small_vit(**VARIANTS[request.param])


@pytest.fixture
def make_vit():
    return small_vit


@pytest.fixture
def images():
    """Eight images for the small models, with labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)


@pytest.fixture(scope="session")
def plan_of():
    """Make a Plan from {layer name: kept units}; other layers are left out."""

    def make(model, kept):
        adapter = adapter_for(model)
        layers = [layer for layer in adapter.layers(model) if layer.name in kept]
        if not kept:  # a plan has a layer at least: this one keeps all
            layers = [layer for layer in adapter.layers(model) if layer.kind == "mlp"][:1]
            kept = {layer.name: range(layer.units) for layer in layers}

        def column(value, kind=pa.int32()):
            return pa.array(
                [value(layer, unit) for layer in layers for unit in range(layer.units)], kind
            )

        columns = {
            "layer": column(lambda layer, unit: layer.name, pa.utf8()),
            "group": column(lambda layer, unit: layer.kind, pa.utf8()),
            "unit": column(lambda layer, unit: unit),
            "unit_width": column(lambda layer, unit: layer.unit_width),
            "parts": column(lambda layer, unit: layer.parts),
            "unit_macs": column(lambda layer, unit: layer.unit_macs, pa.int64()),
            "unit_params": column(lambda layer, unit: layer.unit_params, pa.int64()),
            "score": column(lambda layer, unit: 0.0, pa.float64()),
            "keep": column(lambda layer, unit: unit in set(kept[layer.name]), pa.bool_()),
        }
        metadata = {
            "agflow.model": model_name(model),
            "agflow.model_macs": str(count_macs(model)),
            "agflow.model_params": str(count_params(model)),
            "agflow.criterion": "agf",
            "agflow.seed": "0",
            "agflow.request": json.dumps(REQUEST),
            "agflow.planned": "{}",
        }
        costs = adapter.costs(model)
        if costs is not None:
            metadata["agflow.costs"] = json.dumps(costs)
        return Plan(pa.RecordBatch.from_pydict(columns, metadata=metadata))

    return make


@pytest.fixture(scope="session")
def folder():
    """The development data: DeiT-Tiny and ImageNet images."""
    place = pathlib.Path(
        os.environ.get("AGFLOW_TEST_DATA") or pathlib.Path(__file__).parents[3] / "shared" / "data"
    )
    if not (place / "deit_tiny_patch16_224.safetensors").exists():
        pytest.skip(
            f"no development data in {place}: set AGFLOW_TEST_DATA to the folder with "
            "deit_tiny_patch16_224.safetensors"
        )
    return place


@pytest.fixture(scope="session")
def networks(folder):
    """The development data with the convolutional networks that ``cifar`` loads."""
    files = ("resnet20_cifar10", "resnet56_cifar10", "tf_efficientnet_lite0")
    missing = [file for file in files if not (folder / f"{file}.safetensors").exists()]
    if missing or not (folder / "cifar10_mini.npz").exists():
        pytest.skip(
            f"no trained convolutional networks in {folder}: set AGFLOW_TEST_DATA to the folder "
            f"with cifar10_mini.npz and {', '.join(f'{file}.safetensors' for file in files)}"
        )
    return folder


@pytest.fixture(scope="session")
def deit(folder):
    """DeiT-Tiny with its ImageNet weights; tests must leave it as it is."""
    model, preprocessing, _ = load_model(
        "timm:deit_tiny_patch16_224", folder / "deit_tiny_patch16_224.safetensors"
    )
    return model, preprocessing


@pytest.fixture(scope="session")
def imagenette(folder, deit):
    """Make a balanced dataset with ImageNet labels from a file of the development data."""

    def make(file, limit, offset=0):
        return load_dataset(
            f"parquet:{folder / file}",
            preprocessing=deit[1],
            classes=1000,
            limit=limit,
            offset=offset,
            seed=0,
        )

    return make


@pytest.fixture(scope="session")
def photographs(imagenette):
    """A loader of 12 real images in batches of 4."""
    return DataLoader(imagenette("imagenette160_train3000.parquet", 12), batch_size=4)


@pytest.fixture(scope="session")
def random_keep():
    """Keep random units in some layers: as many in each part, a branch wholly or not at all."""

    def make(model, seed, groups=("mlp", "heads")):
        random = np.random.default_rng(seed)
        layers = [
            layer
            for layer in adapter_for(model).layers(model)
            if layer.kind in groups and random.random() < 0.8
        ]
        return {layer.name: keep_some(layer, random) for layer in layers}

    return make


def keep_some(layer, random):
    if layer.kind == "block":
        return np.flatnonzero(random.random(1) < 0.7)
    in_part = layer.units // layer.parts
    least = (
        in_part // 4 if layer.kind == "embed" else 1
    )  # of one or two channels a norm leaves next to nothing
    count = random.integers(max(least, 1), in_part + 1)
    return np.concatenate(
        [
            part * in_part + np.sort(random.choice(in_part, count, replace=False))
            for part in range(layer.parts)
        ]
    )


@pytest.fixture(scope="session")
def example():
    """(heavy expert, preprocessing) of the shipped example."""
    model, preprocessing, _ = load_model("example")
    return model.eval(), preprocessing


@pytest.fixture(scope="session")
def loader(example):
    """Make a loader over images [start, stop) of the example's training or test part."""
    parts = {
        part: load_dataset(f"example:{part}", preprocessing=example[1], classes=10)
        for part in ("train", "test")
    }

    def make(part, start, stop, batch_size=64):
        return DataLoader(Subset(parts[part], range(start, stop)), batch_size=batch_size)

    return make


@pytest.fixture(scope="session")
def statistics(example, loader):

    return agflow.calibrate(example[0], loader("train", 0, 256), batches=4)


@pytest.fixture(scope="session")
def light(example, loader, statistics):
    """The example at 0.35x of its MACs, repaired and not trained."""

    plan = agflow.plan(statistics, macs=0.35)
    return agflow.prune(example[0], plan, loader("train", 0, 256)).eval()


@pytest.fixture(scope="session")
def scores_with_costs():
    """Scores and costs of one linear layer, 8 channels to 10; channel 7 has the highest score."""

    costs = {
        "sizes": {"mlp": 8},
        "products": [
            {"kind": "linear", "name": "fc", "rows": 1, "inputs": [[1, "mlp"]], "outputs": [[10]]}
        ],
    }
    ones = pa.array([1] * 8, pa.int32())
    columns = {
        "layer": ["mlp"] * 8,
        "group": ["mlp"] * 8,
        "unit": pa.array(range(8), pa.int32()),
        "unit_width": ones,
        "parts": ones,
        "unit_macs": [10] * 8,
        "unit_params": [10] * 8,
        "score": [float(unit + 1) for unit in range(8)],
    }
    metadata = {
        "agflow.kind": "scores",
        "agflow.model": "tiny",
        "agflow.model_macs": "80",
        "agflow.model_params": "80",
        "agflow.criterion": "agf",
        "agflow.seed": "0",
        "agflow.costs": json.dumps(costs),
    }
    return agflow.Scores(pa.RecordBatch.from_pydict(columns).replace_schema_metadata(metadata))


@pytest.fixture(scope="session")
def latency():
    """A latency table of that model."""

    columns = {
        "kind": ["linear"] * 2,
        "rows": [1] * 2,
        "shape": ["linear 1x8x10"] * 2,
        "inputs": [1, 8],
        "outputs": [10] * 2,
        "heads": [0] * 2,
        "ms": [1.0, 8.0],
    }
    metadata = {"agflow.kind": "latency", "agflow.model": "tiny", "agflow.model_ms": "16"}
    return agflow.pruning.LatencyTable(
        pa.RecordBatch.from_pydict(columns).replace_schema_metadata(metadata)
    )


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
