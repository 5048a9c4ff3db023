"""One call that shrinks: every family and form of images, measured on images held out."""

import copy
import json

import pytest
import torch
from small_vits import images_for, made, of_timm, of_torchvision, of_transformers
from torch.utils.data import DataLoader, Subset, TensorDataset

import agflow
from agflow.errors import BudgetError, DtypeError, InvalidValueError, ShapeError
from agflow.evaluation import evaluate
from agflow.models import count_macs, load_expert, logits_of
from agflow.recipes import ShrinkOptions
from agflow.recipes.shrink_report import ShrinkReport

FEW = ShrinkOptions(batches=2, batch_size=8)


KINDS = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "transformers": of_transformers,
    "transformers with teacher": lambda: of_transformers("DeiT", "WithTeacher"),
}


def shrink(model, images, **options):
    reports = []
    light = agflow.shrink(model, images, report=reports.append, **{"options": FEW, **options})
    return light, *reports


@pytest.mark.parametrize(
    "kind, labelled",
    [(kind, kind != "transformers") for kind in KINDS] + [("timm", False)],
)
def test_a_light_model_of_every_family(kind, labelled):
    model = made(KINDS[kind]).train()
    model.get_submodule(next(iter(dict(model.named_children())))).eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    images = images_for(model, 24)
    data = (images, torch.arange(24) % 10) if labelled else images
    state = torch.get_rng_state()
    light, report = shrink(model, data, macs=0.6)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    of_names = dict(model.named_modules())
    for name, module in light.named_modules():
        assert name not in of_names or module.training == of_names[name].training
    assert isinstance(light, torch.nn.Module) and light.training
    assert count_macs(light) == report.plan.macs <= 0.6 * count_macs(model)
    assert logits_of(light(images)).shape == (24, 10)
    assert (report.calibration, report.held_out, report.classes) == (16, 6, 10)
    assert (report.accuracy is None) is not labelled and 0 <= report.agreement <= 1
    again, other = (
        agflow.shrink(model, data, macs=0.6, options=FEW, report=None, seed=seed) for seed in (0, 1)
    )
    same = lambda one: torch.equal(logits_of(one(images)), logits_of(light.eval()(images)))
    assert same(again.eval()) and not same(other.eval())


def test_the_figures_are_those_of_images_that_calibrated_nothing(example, loader, capsys):
    model, _ = example
    data = loader("train", 0, 400).dataset
    light, report = shrink(model, data, macs=0.5)
    sketch = set(report.tuning.split())
    fresh = [i for i in range(400) if agflow.data.sketch_images([data[i][0][None]]) not in sketch]
    assert len(fresh) == 400 - report.calibration == 384 and report.held_out == 100
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))[300:].tolist()
    held_out = DataLoader(Subset(data, order), 100)
    assert set(order) <= set(fresh)
    assert report.accuracy == evaluate(light, held_out).top1
    assert report.dense_accuracy == evaluate(model, held_out).top1 > 0.8
    agflow.shrink(model, data, macs=0.5, options=FEW)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("vit_tiny_patch16_224: 0.4") and "of its MACs" in lines[0]
    assert "on 100 held-out images" in lines[1] and "images/s" in lines[2]
    assert lines[-1].startswith("next: agflow.finetune(light")
    content = json.loads(json.dumps(report.as_dict()))
    assert content["images"] == {"calibration": 16, "held_out": 100}
    assert content["speedup"]["min"] <= content["speedup"]["median"]
    agflow.shrink(model, data, macs=0.5, options=FEW, report=None)
    assert capsys.readouterr().out == ""


def test_the_light_model_goes_on_to_every_next_step(tmp_path):
    heavy = made(of_timm)
    images = TensorDataset(images_for(heavy, 48), torch.arange(48) % 10)
    light, report = shrink(heavy, images, params=0.8)
    assert report.params <= 0.8 * report.dense_params
    parts = [DataLoader(Subset(images, range(a, a + 24)), 8) for a in (0, 24)]
    history = agflow.finetune(light, parts[0], held_out=parts[1], epochs=1)
    assert history.best_accuracy >= history.start
    predictions = agflow.predict(light, heavy, parts[1])
    cascade = agflow.Cascade(light, heavy, agflow.calibrate_router(predictions))
    assert cascade(images.tensors[0]).shape == (48, 10)
    agflow.save(light, tmp_path / "light")
    again = load_expert(tmp_path / "light")
    assert torch.equal(again(images.tensors[0]), light.eval()(images.tensors[0]))


@pytest.mark.slow
def test_data_by_name():
    model = agflow.load_model("example")[0]
    model.pretrained_cfg |= {"mean": (0.286,), "std": (0.353,), "input_size": (1, 28, 28)}
    light, report = shrink(model, "example:test", pruning_ratio=0.5)
    assert report.held_out == 250 and report.dense_accuracy > 0.7
    assert count_macs(light) < count_macs(model)


def test_refusals_come_before_the_work():
    model, images = made(of_timm), torch.randn(24, 3, 32, 32)
    wrong = [
        ({}, InvalidValueError, "no budget was given, expected one of macs .such as macs=0.5"),
        ({"macs": 0.5, "params": 0.5}, InvalidValueError, "macs and params were given"),
        ({"macs": 1e-6}, BudgetError, "reaches .* at the least"),
        ({"macs": 0.5, "images": images[:, :1]}, ShapeError, r"takes \[images, 3, 32, 32\]"),
        ({"macs": 0.5, "images": "pictures"}, InvalidValueError, "data 'pictures'"),
        ({"macs": 0.5, "images": (images, torch.arange(24))}, InvalidValueError, "10 classes"),
        ({"macs": 0.5, "model": made(of_timm).half()}, DtypeError, "call model.float.. first"),
        (
            {"macs": 0.5, "model": torch.nn.Linear(2, 2)},
            agflow.errors.UnsupportedModelError,
            "does not run on images",
        ),
    ]
    for options, kind, message in wrong:
        with pytest.raises(kind, match=message) as raised:
            agflow.shrink(**{"model": model, "images": images, "options": FEW, **options})
        assert "\n" not in str(raised.value)
    for field, value in (("held_out", 1), ("held_out", 0), ("batches", 0), ("compensate", "no")):
        with pytest.raises(InvalidValueError, match=field if field != "compensate" else "no"):
            ShrinkOptions(**{field: value})


def test_what_a_report_says_of_its_figures(make_vit):
    images = (torch.randn(24, 3, 32, 32), torch.zeros(24, dtype=torch.int64))
    _, report = shrink(make_vit(), images, macs=0.6)
    say = lambda **changed: str(ShrinkReport(**{**vars(report), **changed}))
    chance = say(accuracy=0.1, dense_accuracy=0.1, agreement=0.3, held_out=1000)
    assert "hardly better than chance" in chance and "on 30.0 %" in chance
    assert "chance" not in say(accuracy=0.1, dense_accuracy=0.8)
    assert "which have no labels" in say(accuracy=None, dense_accuracy=None)
    timed = lambda *light: say(
        timings={
            "dense": agflow.evaluation.Timing((1.0, 1.0)),
            "light": agflow.evaluation.Timing(light),
        }
    )
    assert "2.00x (2.00x to 2.00x)\n" in timed(0.5, 0.5)
    assert "too noisy to tell" in timed(0.5, 2.0) and "SLOWER" in timed(2.0, 2.0)
