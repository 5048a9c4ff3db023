"""What only runs a model is looked through; a module that computes more is pruned as a whole."""

import json
import pathlib

import pytest
import torch
import transformers
from timm.utils import ModelEmaV2, ModelEmaV3
from torch import nn

import agflow
from agflow.models import describe_groups
from agflow.models.image_sizes import note_size
from agflow.pruning import Allocation
from agflow.recipes import ShrinkOptions, StepOptions

CONFIGS = pathlib.Path(agflow.__file__).parent / "bench" / "coverage_transformers.json"
SMALL = json.loads(CONFIGS.read_text())
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def half(statistics):
    return agflow.plan(statistics, pruning_ratio=0.5, allocation=Allocation(round_to=1))


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 6, 1, bias=False)
    tail = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    return nn.Sequential(*layers, *tail).eval()


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        torch.optim.swa_utils.AveragedModel,
        ModelEmaV2,
        ModelEmaV3,
        lambda model: nn.DataParallel(torch.compile(model)),
    ],
)
def test_what_only_runs_a_model_is_looked_through(wrap, tmp_path):
    model = network()
    note_size(model, IMAGES.shape[1:])
    wrapper, loader = wrap(model), [(IMAGES, torch.arange(2))]
    kinds = sorted({group.kind for group in describe_groups(model).groups})
    statistics = agflow.calibrate(wrapper, loader, groups=kinds)
    assert statistics.metadata["agflow.model"] == "Sequential"
    plan = half(statistics)
    light = agflow.prune(wrapper, plan, compensate="none")
    expected = agflow.prune(model, plan, compensate="none")
    x = IMAGES
    assert agflow.count_macs(light) < agflow.count_macs(model)
    assert type(light) is nn.Sequential and torch.equal(light(x), expected(x))
    assert agflow.count_macs(wrapper) == agflow.count_macs(model)
    assert describe_groups(wrapper).groups == describe_groups(model).groups
    agflow.save(wrapper, tmp_path / "expert")
    assert torch.equal(agflow.load(tmp_path / "expert")(x), model(x))
    agflow.finetune(wrapper, loader, epochs=1, lr=0.1)  # in place
    inside = next(m for m in wrapper.modules() if type(m) is nn.Sequential)
    assert not torch.equal(inside.eval()(x), expected(x))


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone, as ``torchrun --nproc-per-node 1`` makes one."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [nn.parallel.DistributedDataParallel, torch.compile, torch.optim.swa_utils.AveragedModel],
)
def test_whole_workflows_take_what_only_runs_a_model(wrap, one_process, tmp_path):
    model = network()
    note_size(model, IMAGES.shape[1:])
    wrapper, few = wrap(model), Allocation(round_to=1)
    images = [(image, i % 5) for i, image in enumerate(torch.randn(8, *IMAGES.shape[1:]))]
    loader = torch.utils.data.DataLoader(images, batch_size=8)
    light, expected = (
        agflow.shrink(each, images, pruning_ratio=0.5, options=ShrinkOptions(allocation=few))
        for each in (wrapper, model)
    )
    assert type(light) is nn.Sequential and torch.equal(light(IMAGES), expected(IMAGES))
    step = StepOptions(epochs=1, allocation=few)
    found, records = agflow.prune_iteratively(
        wrapper, loader, loader, macs=0.8, steps=2, options=step
    )
    assert type(found) is nn.Sequential and records[-1].macs == agflow.count_macs(found)
    assert records[1].budget <= records[0].macs  # few large units went below the second budget
    assert agflow.export(wrapper, tmp_path / "model.pt2") < 1e-4
    run = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.allclose(run(IMAGES), model(IMAGES), atol=1e-5)


class Scaled(nn.Module):
    """A model of one's own that holds another and computes more than it."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3])[:, None, None])

    def forward(self, images):
        return self.module((images - self.mean) / 2)


def test_a_module_that_holds_a_model_is_pruned_as_a_whole(tmp_path):
    model = Scaled(network()).eval()
    note_size(model, IMAGES.shape[1:])
    loader = [(IMAGES, torch.arange(2))]
    kinds = sorted({group.kind for group in describe_groups(model).groups})
    statistics = agflow.calibrate(model, loader, groups=kinds)
    assert {name.split(".")[0] for name in statistics["layer"]} == {"module"}
    light = agflow.prune(model, half(statistics), loader)
    assert agflow.count_macs(light) < agflow.count_macs(model)
    agflow.save(light, tmp_path / "expert")
    loaded = agflow.load(tmp_path / "expert", model=Scaled(network()))
    x = IMAGES
    assert torch.equal(loaded(x), light(x)) and not torch.equal(light(x), light.module(x))


class Cached(nn.Module):
    """As LeViT: what is computed of a weight is kept in evaluation mode, and dropped by train()."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.kept = {}

    def train(self, mode=True):
        self.kept = {}
        return super().train(mode)

    def forward(self, x):
        if "scale" not in self.kept:
            self.kept["scale"] = 2 * self.scale
        return x * self.kept["scale"]


def test_what_modules_keep_of_their_weights_is_dropped():
    tail = nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Cached(), *tail).eval()
    note_size(model, IMAGES.shape[1:])
    model(IMAGES).sum().backward()  # keeps a tensor of this graph
    first = describe_groups(model).groups[0]  # a kept tensor would be a constant of the graph
    assert (first.name, first.units) == ("0", 8)
    statistics = agflow.calibrate(model, [(IMAGES, torch.arange(2))], groups="conv")
    plan = half(statistics)
    light = agflow.prune(model, plan, compensate="none")
    kept = len(plan.kept("0"))
    assert kept < 8 and len(light[1].scale) == kept and light(IMAGES).shape == (2, 4)


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 16, 16))

    def forward(self, images):
        return self.table.expand(len(images), -1, -1, -1)


class Placed(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions, self.network = Positions(), network()

    def forward(self, images):
        return self.network(images + self.positions(images))


def test_macs_are_counted_where_a_module_puts_out_its_parameter():
    model = Placed()
    note_size(model, (3, 16, 16))
    plain = network()
    note_size(plain, (3, 16, 16))
    assert agflow.count_macs(model) == agflow.count_macs(plain)
    assert model.positions.table.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        f"{kind}ForImageClassification"
        for kind in (
            "Levit",
            "ResNet",
            "Swin",
            "ConvNext",
            "ConvNextV2",
            "Dinov2",
            "Beit",
            "Siglip",
        )
    ],
)
def test_hugging_face_classifiers(name, tmp_path):
    entry = SMALL["classifiers"][name]
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**entry["config"], num_labels=7)).eval()
    x = torch.randn(4, *entry["image_size"])
    loader = [(x, torch.arange(4))]
    note_size(model, entry["image_size"])
    kinds = sorted({group.kind for group in describe_groups(model).groups} - {"block"})
    plan = agflow.plan(agflow.calibrate(model, loader, groups=kinds), macs=0.7)
    light = agflow.prune(model, plan, loader)
    agflow.save(light, tmp_path / "expert")
    with torch.no_grad():
        assert torch.equal(agflow.load(tmp_path / "expert")(x).logits, light(x).logits)
