"""What users bring of their own: losses, criteria, modules, single names, dictionaries."""

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

import agflow
from agflow.calibration import CalibrationOptions
from agflow.errors import (
    AgflowError,
    DtypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from agflow.pruning import Allocation
from agflow.recipes import StepOptions
from agflow.search import SearchSpace

IMAGES, CLASSES = 6, 4


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=CLASSES,
    )


@pytest.fixture(scope="module")
def batch():
    images = torch.randn(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": images, "labels": torch.arange(IMAGES) % CLASSES}


@pytest.fixture(scope="module")
def statistics(model, batch):
    return agflow.calibrate(model, [batch])


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch.images), batch.labels, reduction="none")


def test_a_loss_of_ones_own_is_that_of_each_image(model, batch, statistics):
    own = agflow.calibrate(model, [batch], loss=cross_entropy)
    for column in ("sum_abs_yg", "sum_g2", "samples"):
        np.testing.assert_array_equal(own[column], statistics[column])
    name = f"{__name__}:cross_entropy, sum over the batch"
    assert own.metadata["agflow.loss"] == name
    halves = [{key: value[part] for key, value in batch.items()} for part in (range(3), [3, 4, 5])]
    parts = agflow.calibrate(model, halves, loss=cross_entropy)
    np.testing.assert_allclose(parts["sum_abs_yg"], own["sum_abs_yg"], rtol=1e-4)
    assert agflow.plan(own, macs=0.7).metadata["agflow.loss"] == name
    with pytest.raises(InvalidValueError, match="of the loss .*merge runs of one loss"):
        own.merge(statistics)


@pytest.mark.parametrize(
    "loss, error, why",
    [
        (lambda m, b: cross_entropy(m, b).mean(), ShapeError, r"returned \[\], expected .*\[6\]"),
        (lambda m, b: cross_entropy(m, b)[:2], ShapeError, r"returned \[2\]"),
        (lambda m, b: m(b.images), ShapeError, r"returned \[6, 4\]"),
        (lambda m, b: 1.0, ShapeError, "returned float"),
        (lambda m, b: cross_entropy(m, b).detach(), InvalidValueError, "does not depend"),
        (lambda m, b: b.labels, InvalidValueError, "does not depend"),
        (lambda m, b: cross_entropy(m, b) / 0 * 0, NonFiniteError, "for 6 images"),
        (
            lambda m, b: cross_entropy(m, b) + m(b.images.flip(-1)).sum(1),
            InvalidValueError,
            "sent 12 images of a batch of 6",
        ),
        (
            "none",
            InvalidValueError,
            "loss is 'none', expected 'labels', 'self', 'features' or a function",
        ),
        (None, InvalidValueError, "loss is None"),
    ],
)
def test_losses_that_are_none_of_each_image(model, batch, loss, error, why):
    with pytest.raises(error, match=why):
        agflow.calibrate(model, [batch], loss=loss)
    assert all(parameter.grad is None for parameter in model.parameters())


def gradient_flow(statistics):
    return statistics["sum_abs_yg"] / statistics["rows"]


def test_a_criterion_of_ones_own_gives_scores_by_unit(statistics):
    own, agf = agflow.score(statistics, gradient_flow), agflow.score(statistics, "agf")
    np.testing.assert_array_equal(own["score"], agf["score"])
    assert own.criterion == f"{__name__}:gradient_flow"
    as_others_return_it = [
        lambda table: torch.tensor(gradient_flow(table), requires_grad=True),
        lambda table: list(gradient_flow(table)),
        lambda table: table.to_pandas().eval("sum_abs_yg / rows"),
    ]
    for criterion in as_others_return_it:
        np.testing.assert_array_equal(agflow.score(statistics, criterion)["score"], agf["score"])
    plan, expected = (
        agflow.plan(statistics, macs=0.7, criterion=gradient_flow),
        agflow.plan(agf, macs=0.7),
    )
    np.testing.assert_array_equal(plan["keep"], expected["keep"])
    assert plan.criterion == own.criterion


def test_a_plan_by_ones_own_criterion_is_kept_in_files(statistics, tmp_path):
    plan = agflow.plan(statistics, pruning_ratio=0.5, criterion=lambda table: -table["unit"])
    plan.save(tmp_path / "plan.arrow")
    again = agflow.Plan.load(tmp_path / "plan.arrow")
    assert again == plan and again.criterion.startswith(f"{__name__}:test_a_plan")
    assert list(again.kept("blocks.0.mlp")) == list(range(len(again.kept("blocks.0.mlp"))))


@pytest.mark.parametrize(
    "criterion, error, why",
    [
        (lambda table: table["sum_abs_y"][:3], ShapeError, r"returned the shape \[3\]"),
        (lambda table: 1.0, ShapeError, r"returned the shape \[\]"),
        (lambda table: table["sum_y"] * np.nan, NonFiniteError, "NaN or infinity for"),
        (lambda table: table["layer"], DtypeError, "expected .* numbers"),
        (lambda table: None, DtypeError, "returned NoneType"),
    ],
)
def test_criteria_that_give_no_scores(statistics, criterion, error, why):
    with pytest.raises(error, match=why):
        agflow.score(statistics, criterion)
    with pytest.raises(InvalidValueError, match="the table holds scores by agf"):
        agflow.plan(agflow.score(statistics, "agf"), macs=0.5, criterion=criterion)


def ignored(statistics, *layers):
    return agflow.plan(statistics, macs=0.95, allocation=Allocation(ignored_layers=layers))


def test_modules_stand_for_their_layers(model, statistics):
    first, block = model.blocks
    for modules, names in (
        ([first.mlp], ["blocks.0.mlp"]),
        ([first.mlp.fc1, block.attn.qkv], ["blocks.0.mlp", "blocks.1.attn"]),
        ([block], ["blocks.1.*"]),
        ([block, "blocks.0.mlp"], ["blocks.1.*", "blocks.0.mlp"]),
    ):
        found, expected = ignored(statistics, *modules), ignored(statistics, *names)
        np.testing.assert_array_equal(found["keep"], expected["keep"])
    dense = agflow.plan(statistics, macs=0.95)
    np.testing.assert_array_equal(ignored(statistics, model.head)["keep"], dense["keep"])
    single = agflow.plan(statistics, macs=0.95, allocation=Allocation(ignored_layers=first.mlp))
    np.testing.assert_array_equal(single["keep"], ignored(statistics, "blocks.0.mlp")["keep"])
    with pytest.raises(InvalidValueError, match="has a Linear of no model that was calibrated"):
        ignored(statistics, torch.nn.Linear(2, 2))


def test_a_single_name_is_never_its_letters(model, batch, statistics):
    one, several = (agflow.calibrate(model, [batch], groups=groups) for groups in ("mlp", ["mlp"]))
    assert one == several
    assert Allocation(groups="mlp", ignored_layers="blocks.0*") == Allocation(
        groups=("mlp",), ignored_layers=("blocks.0*",)
    )
    plan = agflow.plan(statistics, macs=0.8, allocation=Allocation(groups="mlp"))
    assert all(len(plan.kept(f"blocks.{i}.attn")) == 3 for i in (0, 1))
    assert StepOptions(groups="heads").groups == ("heads",)
    assert SearchSpace(groups="mlp", macs=0.5, shared_blocks=1, image_sizes=16).macs == (0.5,)
    for wrong in (
        lambda: agflow.calibrate(model, [batch], groups="mlps"),
        lambda: agflow.calibrate(model, [batch], groups={"mlp": 1}),
        lambda: Allocation(groups=5),
        lambda: Allocation(ignored_layers=[5]),
        lambda: Allocation(widths=gradient_flow),
        lambda: SearchSpace(macs="0.5"),
        lambda: SearchSpace(image_sizes="16"),
        lambda: agflow.data.class_names.ModelClasses.of("shirt"),
        lambda: agflow.models.preprocessing_of(model, mean="0.5", std="0.5"),
    ):
        with pytest.raises(AgflowError, match=", expected|groups is"):
            wrong()


def test_dictionaries_are_batches_everywhere(model, batch, statistics):
    loader = [batch, batch]
    light = agflow.prune(model, agflow.plan(statistics, macs=0.8), loader)
    history = agflow.finetune(
        light, loader, epochs=1, distillation=agflow.training.Distillation(model)
    )
    assert history[0]["epoch"] == 1
    teacher = agflow.training.CachedTeacher.of(model, loader)
    agflow.training.distill(light, teacher, epochs=1)
    assert len(teacher.images) == len(agflow.predict(light, model, loader)) == 2 * IMAGES
    assert agflow.evaluate(light, loader).images == 2 * IMAGES
    assert agflow.data.sketch_images(loader)
    assert len(agflow.research.image_utilities(model, loader)) == 2 * IMAGES


def test_several_steps_take_modules_and_functions(model, batch, tmp_path):
    options = StepOptions(
        criterion=gradient_flow,
        allocation=Allocation(ignored_layers=[model.blocks[0]]),
        epochs=1,
        calibration=CalibrationOptions(),
    )
    folder = tmp_path / "run"
    for _ in range(2):  # the second time, everything is there already
        _, steps = agflow.prune_iteratively(
            model, [batch], [batch], macs=0.8, steps=2, options=options, folder=folder
        )
    assert len(steps) == 2
