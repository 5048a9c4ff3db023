"""Every public function takes convolutional networks: of one's own, of timm and of torchvision."""

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import agflow
from agflow.diagnostics import diagnose
from agflow.models import adapter_for, split
from agflow.plotting import plot_utilities
from agflow.pruning import Allocation
from agflow.recipes import StepOptions
from agflow.training import CachedViews, Checkpointing, Distillation, TrainingOptions

COMPENSATIONS = ("none", "mean", "ridge_at_once", "ridge")


class Own(nn.Module):
    """A residual block, an inverted bottleneck with a gate, and a classifier of two layers."""

    def __init__(self, width=16):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        self.conv1, self.norm1 = nn.Conv2d(width, 24, 3, 1, 1), nn.BatchNorm2d(24)
        self.conv2, self.norm2 = nn.Conv2d(24, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.expand, self.depthwise = nn.Conv2d(width, 32, 1), nn.Conv2d(32, 32, 3, 2, 1, groups=32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.project = nn.Conv2d(32, 24, 1)
        self.hidden, self.classifier = nn.Linear(24, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        x = F.silu(self.depthwise(F.silu(self.expand(x))))
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        x = self.project(x * torch.sigmoid(gate)).mean((2, 3))
        return self.classifier(F.gelu(self.hidden(x)))


def of_timm():
    import timm

    return timm.create_model("test_efficientnet", num_classes=10)


def of_torchvision():
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


KINDS = {
    "own": (Own, ("conv", "mlp")),
    "timm": (of_timm, ("conv",)),
    "torchvision": (of_torchvision, ("conv", "stage")),
}
NETWORKS = [
    "own",
    pytest.param("timm", marks=pytest.mark.slow),
    pytest.param("torchvision", marks=pytest.mark.slow),
]


class Case:
    """A network, images that it answers in more than one way, and what is made of it."""

    def __init__(self, kind):
        make, self.groups = KINDS[kind]
        torch.manual_seed(0)
        self.heavy = make().eval()
        for norm in self.heavy.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.data.uniform_(0.5, 1.5)
                norm.bias.data.normal_(0, 0.2)
        images_NCHW = torch.randn(48, 3, 32, 32)
        with torch.no_grad():
            logits_NK = self.heavy(images_NCHW)
            spread_NK = logits_NK - logits_NK.mean(0)  # random networks prefer one class
        self.data = TensorDataset(images_NCHW, spread_NK.argmax(1))
        self.loader = DataLoader(self.data, batch_size=16)
        self.statistics = agflow.calibrate(
            self.heavy, self.loader, groups=self.groups, weight_gradients=True
        )
        self.plan = agflow.plan(
            self.statistics, macs=0.6, allocation=Allocation(round_to=1), criterion="variance"
        )
        self.light = agflow.prune(self.heavy, self.plan, self.loader)

    @property
    def images(self):
        return self.data.tensors[0]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    return Case(request.param)


def answers(model, images):
    with torch.no_grad():
        return model.eval()(images)


def test_measured_ranked_and_planned(case, tmp_path):
    statistics, found = case.statistics, {layer.group for layer in case.statistics.layers}
    assert found == set(case.groups)
    statistics.save(tmp_path / "statistics.arrow")
    assert agflow.Statistics.load(tmp_path / "statistics.arrow") == statistics
    assert statistics.merge(statistics)["samples"][0] == 2 * 48
    for criterion in agflow.criteria():
        values = np.concatenate([agflow.score(statistics, criterion)["score"]])
        assert np.isfinite(values).all() and (values >= 0).all() and values.max() > 0, criterion
    for budget in ({"macs": 0.6}, {"params": 0.6}, {"pruning_ratio": 0.5}):
        plan = agflow.plan(statistics, **budget, allocation=Allocation(round_to=1))
        assert plan.macs < plan.model_macs == agflow.count_macs(case.heavy)
    assert 0.5 < case.plan.macs / case.plan.model_macs <= 0.6
    assert diagnose(statistics).ranges
    assert plot_utilities(agflow.score(statistics)).get_xlabel() == "layer"


def test_the_layers_of_a_kind_are_ignored_by_name_and_module(case):
    names = [layer.name for layer in case.statistics.layers]
    for ignored in (names[0], case.heavy.get_submodule(names[0])):
        ignoring = Allocation(ignored_layers=[ignored], round_to=1)
        plan = agflow.plan(case.statistics, pruning_ratio=0.5, allocation=ignoring)
        cut = {layer.name for layer in plan.planned if layer.kept < layer.units}
        assert names[0] not in cut and cut


@pytest.mark.parametrize("compensate", COMPENSATIONS)
def test_pruned_with_every_repair(case, compensate):
    light = agflow.prune(case.heavy, case.plan, case.loader, compensate=compensate)
    assert agflow.count_macs(light) == case.plan.macs
    assert answers(light, case.images).isfinite().all()
    assert type(light) is type(case.heavy)


def test_the_repair_brings_the_answers_back(case):
    dense = answers(case.heavy, case.images)
    error = {
        compensate: (
            answers(
                agflow.prune(case.heavy, case.plan, case.loader, compensate=compensate), case.images
            )
            - dense
        )
        .square()
        .mean()
        for compensate in ("none", "ridge")
    }
    assert error["ridge"] < 0.5 * error["none"]


def test_saved_and_loaded_with_the_same_answers(case, tmp_path, monkeypatch):
    agflow.save(case.light, tmp_path / "light", plan=case.plan)
    text = (tmp_path / "light" / "README.md").read_text()
    assert "MACs per image" in text
    if isinstance(case.heavy, Own):
        return  # loaded with the class at hand: test_load.py
    again = agflow.load(tmp_path / "light")
    assert torch.equal(answers(again, case.images), answers(case.light, case.images))


def test_exported_for_other_runtimes(case, tmp_path):
    for name in ("light.onnx", "light.pt2"):
        assert agflow.export(case.light, tmp_path / name) < 1e-3


def test_fine_tuned_with_a_teacher_its_features_and_checkpoints(case, tmp_path):
    light, distillation = copy.deepcopy(case.light), Distillation(case.heavy, features=1.0)
    held_out = [(case.images[:9] + 0.1, case.data.tensors[1][:9])]
    history = agflow.finetune(
        light,
        DataLoader(case.data, batch_size=47),  # and a last batch of one image
        epochs=2,
        lr=1e-4,
        distillation=distillation,
        held_out=held_out,
        checkpointing=Checkpointing(tmp_path / "run"),
    )
    assert [entry["epoch"] for entry in history] == [1, 2] and not light.training
    views = CachedViews.of(case.heavy, case.loader, views=1, tokens=True)
    agflow.finetune(light, views, epochs=1, distillation=Distillation(features=1.0))


def test_first_blocks_stay_as_they_were(case):
    """Their running statistics, too, which training mode alone would move."""
    light = copy.deepcopy(case.heavy)
    prefix, _ = split(light, 1)
    shared = {id(tensor) for tensor in (*prefix.parameters(), *prefix.buffers())}
    named = [*light.named_parameters(), *light.named_buffers()]
    frozen = {name for name, tensor in named if id(tensor) in shared}
    agflow.finetune(light, case.loader, epochs=1, options=TrainingOptions(frozen_blocks=1))
    dense = case.heavy.state_dict()
    moved = {name for name, tensor in named if not torch.equal(tensor, dense[name])}
    assert frozen and moved and moved.isdisjoint(frozen)


def test_routed_served_and_kept_as_a_cascade(case, tmp_path):
    predictions = agflow.predict(case.light, case.heavy, case.loader)
    router = agflow.calibrate_router(predictions, tolerance=0.9, confidence=0.5)
    evaluation = agflow.evaluate_router(predictions, router)
    assert 0 <= evaluation.cascade <= 1
    cascade = agflow.Cascade(case.light, case.heavy, router)
    assert cascade.costs.light == case.plan.macs and cascade.costs.heavy == case.plan.model_macs
    with agflow.Server(cascade, max_batch=8) as server:
        served = torch.stack([server.submit(image).result() for image in case.images[:5]])
    assert torch.allclose(served, cascade(case.images[:5]), atol=1e-4)
    agflow.save(cascade, tmp_path / "cascade")


def test_pruned_step_by_step(case, tmp_path):
    options = StepOptions(
        groups=case.groups, batches=2, epochs=1, allocation=Allocation(round_to=1)
    )
    light, *_ = agflow.prune_iteratively(
        case.heavy, case.loader, case.loader, macs=0.6, steps=2, folder=tmp_path, options=options
    )
    assert agflow.count_macs(light) <= 0.6 * case.plan.model_macs


def test_shrunk_in_one_call(case):
    light = agflow.shrink(case.heavy, case.data, macs=0.7)
    assert agflow.count_macs(light) <= 0.7 * case.plan.model_macs


def test_at_another_image_size(case):
    small = agflow.models.at_image_size(case.heavy, 24)
    assert agflow.count_macs(small) < case.plan.model_macs
    statistics = agflow.calibrate(case.heavy, case.loader, image_size=24, groups="conv")
    plan = agflow.plan(statistics, macs=0.7, allocation=Allocation(round_to=1))
    light = agflow.prune(case.heavy, plan, case.loader)
    assert agflow.count_macs(light) == plan.macs < agflow.count_macs(small)


@pytest.mark.slow
def test_designed_as_a_cascade(case):
    design = agflow.design_cascade(
        case.heavy,
        case.loader,
        case.loader,
        space=agflow.search.SearchSpace(macs=(0.6, 0.8), groups=case.groups, image_sizes=32),
        epochs=1,
    )
    assert design.chosen.charged > 0


def test_latency_is_planned_from_a_table(case):
    from agflow.bench import layers

    table = layers.measure(case.heavy, batch=2, rounds=1)
    assert any(kind == "convolution" for kind in table["kind"])
    allocation = Allocation(latency=table, round_to=1)
    least = agflow.plan(case.statistics, pruning_ratio=0.9, allocation=allocation)
    halfway = (least.report["latency_ms"] + table.model_ms) / 2  # small networks have little to win
    plan = agflow.plan(case.statistics, latency_ms=halfway, allocation=allocation)
    assert plan.macs < plan.model_macs and 0 < plan.report["latency_ms"] <= halfway


def test_images_have_utilities(case):
    utilities_N = agflow.research.image_utilities(case.heavy, case.loader, groups=case.groups)
    assert utilities_N.shape == (48,) and (utilities_N >= 0).all()


def test_what_no_graph_shows_is_refused_in_one_sentence():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

        def forward(self, x):
            x = self.conv(x)
            if x.sum() > 0:  # no graph has both ways
                x = x * 2
            return self.head(x.mean((2, 3)))

    loader = [(torch.randn(4, 3, 8, 8), torch.arange(4))]
    with pytest.raises(agflow.errors.UnsupportedModelError) as error:
        agflow.calibrate(Branching(), loader)
    assert "Branching" in str(error.value) and "\n" not in str(error.value)
    assert adapter_for(Own()).layers.__self__.family == "traced" and sys.modules
