"""Iterative pruning: budgets, the folder of steps, and the same bits after a crash anywhere."""

import json
import os
import warnings
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from agflow.errors import AgflowError, BudgetError, FileError, InvalidValueError
from agflow.models import count_macs
from agflow.models.expert import load_expert
from agflow.pruning import Allocation
from agflow.recipes import iterative, step_cache
from agflow.recipes.iterative import prune_iteratively
from agflow.recipes.step_options import StepOptions
from agflow.training import Distillation

OPTIONS = {
    "macs": 0.5,
    "steps": 2,
    "options": StepOptions(epochs=2, checkpoint_every=1),
}


@pytest.fixture
def loaders(images):
    """Make a calibration loader and a tuning loader that shuffles by a generator of its own."""

    def make():
        tuning = TensorDataset(images[0].repeat(2, 1, 1, 1), images[1].repeat(2))
        return [images], DataLoader(
            tuning, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(7)
        )

    return make


@pytest.fixture(autouse=True)
def no_warnings_of_chance():
    """No criterion separates units of tiny random models; one test alone expects the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="step .* random units")
        yield


def same(a, b):
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


def test_budgets_fall_geometrically_and_are_met(make_vit, loaders):
    model = make_vit(mlp_ratio=4.0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    light, records = prune_iteratively(model, *loaders(), **{**OPTIONS, "steps": 3})
    dense = count_macs(model)
    assert [record.budget / dense for record in records] == pytest.approx(
        [0.5 ** (1 / 3), 0.5 ** (2 / 3), 0.5], rel=1e-4
    )
    assert all(record.macs <= record.budget for record in records)
    assert count_macs(light) == records[-1].macs and [
        len(record.history) for record in records
    ] == [2, 2, 2]
    assert not light.training and all(
        torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items()
    )


class Broken(Exception):
    pass


@pytest.mark.parametrize("place", ["calibrate", "save_expert", "finetune", "checkpoint", "record"])
@pytest.mark.parametrize("step", [1, 2])
def test_a_run_broken_anywhere_ends_with_the_same_bits(
    make_vit, loaders, tmp_path, monkeypatch, place, step
):
    new = lambda: make_vit(drop_rate=0.1)
    whole, records = prune_iteratively(new(), *loaders(), **OPTIONS)
    name = {"checkpoint": "finetune", "record": "save_expert"}.get(place, place)
    module = step_cache if name == "save_expert" else iterative
    called, function = [], getattr(module, name)

    def breaking(*arguments, **options):
        called.append(1)
        if len(called) < {"save_expert": 2 * step - 1, "record": 2 * step}.get(place, step):
            return function(*arguments, **options)
        if place == "checkpoint":  # in the middle of the first epoch
            left = [3]
            arguments[0].register_forward_pre_hook(
                lambda module, inputs: left.append(1) if len(left) < 4 else broken()
            )
            function(*arguments, **options)
        if place == "record":  # after the expert, before its record
            function(*arguments, **options)
        broken()

    def broken():
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(module, name, breaking)
        with pytest.raises(Broken):
            prune_iteratively(new(), *loaders(), folder=tmp_path / "run", **OPTIONS)
    light, again = prune_iteratively(new(), *loaders(), folder=tmp_path / "run", **OPTIONS)
    assert again == records and same(whole, light)
    assert sorted(os.listdir(tmp_path / "run")) == [
        "run.json",
        "step-1",
        "step-1.json",
        "step-2",
        "step-2.json",
    ]
    assert same(whole, load_expert(tmp_path / "run" / "step-2"))


def test_a_finished_run_is_only_read(make_vit, loaders, tmp_path, monkeypatch):
    light, records = prune_iteratively(make_vit(), *loaders(), folder=tmp_path, **OPTIONS)
    for name in ("calibrate", "finetune"):
        monkeypatch.setattr(iterative, name, None)
    found, again = prune_iteratively(make_vit(), *loaders(), folder=tmp_path, **OPTIONS)
    assert again == records and same(light, found)


def test_a_warning_says_before_the_tuning_that_random_units_are_better(
    make_vit, loaders, monkeypatch
):
    accuracies = iter([0.25, 0.5])
    monkeypatch.setattr(
        iterative,
        "evaluate",
        lambda *arguments, **options: type("", (), {"top1": next(accuracies)}),
    )

    def tuned(*arguments, **options):
        raise Broken

    monkeypatch.setattr(iterative, "finetune", tuned)
    with (
        pytest.raises(Broken),
        pytest.warns(
            UserWarning,
            match="step 1: top-1 is 25.0 % .* below the 50.0 % of random units",
        ),
    ):
        prune_iteratively(make_vit(), *loaders(), **OPTIONS)


def test_refusals(make_vit, loaders, tmp_path):
    with pytest.raises(InvalidValueError, match="steps is 0"):
        prune_iteratively(make_vit(), *loaders(), **{**OPTIONS, "steps": 0})
    with pytest.raises(BudgetError):
        prune_iteratively(make_vit(), *loaders(), **{**OPTIONS, "macs": 0.001})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(FileError, match="holds no run"):
        prune_iteratively(make_vit(), *loaders(), folder=tmp_path / "photos", **OPTIONS)
    prune_iteratively(make_vit(), *loaders(), folder=tmp_path / "run", **{**OPTIONS, "steps": 1})
    for changed, name in (
        ({"macs": 0.6}, "macs: 0.5 then, 0.6 now"),
        ({"steps": 2}, "steps"),
        ({"options": replace(OPTIONS["options"], criterion="magnitude")}, "plan"),
    ):
        with pytest.raises(InvalidValueError, match=f"is of another run .{name}"):
            prune_iteratively(
                make_vit(),
                *loaders(),
                folder=tmp_path / "run",
                **{**OPTIONS, "steps": 1, **changed},
            )
    with pytest.raises(InvalidValueError, match="is of another run .model"):
        prune_iteratively(
            make_vit(depth=2), *loaders(), folder=tmp_path / "run", **{**OPTIONS, "steps": 1}
        )
    for content in ("{", "{}", "[]", json.dumps({"number": 1, "history": []})):
        (tmp_path / "run" / "step-1.json").write_text(content)
        with pytest.raises(AgflowError, match="step-1.json"):
            prune_iteratively(
                make_vit(), *loaders(), folder=tmp_path / "run", **{**OPTIONS, "steps": 1}
            )


def test_a_folder_that_names_only_the_given_options_is_taken_up(make_vit, loaders, tmp_path):
    """As earlier versions wrote run.json: what is not named had the defaults of then."""
    options = replace(OPTIONS["options"], batches=16)
    run = lambda: prune_iteratively(
        make_vit(), *loaders(), folder=tmp_path, macs=0.5, steps=1, options=options
    )
    _, records = run()
    content = json.loads((tmp_path / "run.json").read_text())
    earlier = {
        "calibrate": {},
        "plan": {},
        "prune": {},
        "finetune": {"epochs": 2, "checkpoint_every": 1},
    }
    for name in ("format", "recipe", "checksum"):
        del content[name]
    (tmp_path / "run.json").write_text(json.dumps({**content, **earlier}))
    assert run()[1] == records
    options = replace(options, batches=20)
    with pytest.raises(InvalidValueError, match="is of another run .calibrate"):
        run()


def test_options_out_of_range_are_refused():
    for name, options in {
        "batches is 0": {"batches": 0},
        "epochs is 0": {"epochs": 0},
        "checkpoint_every is 0": {"checkpoint_every": 0},
        "lr is 0": {"lr": 0},
        "compensate is 'glue'": {"compensate": "glue"},
    }.items():
        with pytest.raises(InvalidValueError, match=name):
            StepOptions(**options)


def test_weight_gradients_are_recorded_where_a_criterion_reads_them():
    assert not StepOptions().weight_gradients
    assert StepOptions(criterion="taylor_weight").weight_gradients
    assert StepOptions(allocation=Allocation(widths="taylor_weight")).weight_gradients


@pytest.mark.parametrize("teacher", [True, False])
def test_another_teacher_and_none(make_vit, loaders, tmp_path, teacher):
    distillation = Distillation(make_vit(depth=2)) if teacher else None
    options = replace(OPTIONS["options"], distillation=distillation)
    arguments = {"folder": tmp_path, "macs": 0.5, "steps": 1, "options": options}
    light, _ = prune_iteratively(make_vit(), *loaders(), **arguments)
    assert same(light, prune_iteratively(make_vit(), *loaders(), **arguments)[0])
    with pytest.raises(InvalidValueError, match="is of another run .finetune"):
        prune_iteratively(make_vit(), *loaders(), **{**arguments, "options": OPTIONS["options"]})
