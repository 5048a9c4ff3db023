"""Exported experts in every place that takes a model: run, priced, routed, and never trained."""

import copy
import json

import foreign_onnx
import numpy as np
import pytest
import torch
from foreign_onnx import write_classifier
from torch import nn

import agflow
from agflow import errors
from agflow.cascade.expert_costs import costs_without_images
from agflow.data.preprocessing import Preprocessing
from agflow.models import at_image_size, class_count, count_macs, known_classes, model_name
from agflow.models.exported import ExportedExpert
from agflow.models.load import load_architecture, load_model, tuning_of

PREPROCESSING = Preprocessing((32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
SIZE = (foreign_onnx.CHANNELS, foreign_onnx.HEIGHT, foreign_onnx.WIDTH)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A light expert that resizes its images and a heavy one, with the files of both."""
    from small_vits import made, of_timm

    folder = tmp_path_factory.mktemp("pair")
    heavy = made(of_timm)
    vars(heavy)["class_names"] = [f"class {k}" for k in range(10)]
    light = at_image_size(heavy, 16)
    for name, model in {"light": light, "heavy": heavy}.items():
        agflow.export(model, folder / f"{name}.onnx", preprocessing=PREPROCESSING)
    return light, heavy, folder


def batches(count=24):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)) for _ in range(3)]


def test_files_are_modules_that_give_their_models_logits(pair):
    light, heavy, folder = pair
    for name, model in {"light": light, "heavy": heavy}.items():
        exported = agflow.load(folder / f"{name}.onnx")
        x = batches()[0][0]
        torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(copy.deepcopy(exported)(x), exported(x))
        assert exported(x.double()).dtype == torch.float32
        assert count_macs(exported) == count_macs(model)
        assert known_classes(exported) == [f"class {k}" for k in range(10)]
        assert model_name(exported) == model_name(model)
        assert exported.session.threads == torch.get_num_threads()


def test_they_are_loaded_by_name_with_their_preprocessing(pair, monkeypatch):
    _, _, folder = pair
    monkeypatch.chdir(folder)
    for spec in ("heavy.onnx", "./heavy.onnx", "onnx:heavy.onnx", f"onnx:{folder}/heavy.onnx"):
        model, preprocessing, name = load_model(spec)
        assert isinstance(model, ExportedExpert) and name == "heavy"
        assert preprocessing == PREPROCESSING
    assert isinstance(load_architecture("heavy.onnx"), ExportedExpert)
    assert tuning_of("heavy.onnx", model) == ""
    for option in ("mean", "std", "crop"):
        with pytest.raises(errors.InvalidValueError, match=f"brings its own {option}"):
            load_model("heavy.onnx", **{option: 0.5})
    with pytest.raises(errors.InvalidValueError, match="brings its own weights"):
        load_model("heavy.onnx", "weights.safetensors")
    with pytest.raises(errors.InvalidValueError, match="leave model out"):
        agflow.load("heavy.onnx", nn.Linear(2, 2))
    with pytest.raises(errors.FileError, match="missing.onnx is no file"):
        agflow.load("missing.onnx")


def test_a_pair_is_routed_as_its_models_are(pair):
    light, heavy, folder = pair
    files = [agflow.load(folder / f"{name}.onnx") for name in ("light", "heavy")]
    expected, found = agflow.predict(light, heavy, batches()), agflow.predict(*files, batches())
    assert found.costs == expected.costs and found.costs.unit == "MACs"
    for name, column in expected.columns.items():
        np.testing.assert_allclose(found.columns[name], column, rtol=1e-3, atol=1e-3)
    assert found.metadata["agflow.images"] == expected.metadata["agflow.images"]
    cascade = agflow.Cascade(*files, 0.4)
    x = batches()[0][0]
    torch.testing.assert_close(cascade(x), agflow.Cascade(light, heavy, 0.4)(x), atol=1e-3, rtol=0)
    assert 0 < cascade.last_call.charged


def test_costs_by_the_clock_are_in_ms_with_their_conditions(pair):
    light, heavy, _ = pair
    found = agflow.predict(light, heavy, batches(), costs="measured")
    assert found.costs.unit == "ms" and 0 < found.costs.light < found.costs.heavy * 3
    clock = json.loads(found.metadata["agflow.clock"])
    assert clock == {"batch": 8, "threads": torch.get_num_threads(), "device": "cpu"}
    router = agflow.calibrate_router(found, escalation=0.9)
    assert router.ledger.cost_unit == "ms" and router.ledger.heavy_cost == found.costs.heavy
    assert "agflow.clock" not in agflow.predict(light, heavy, batches()).metadata


def test_a_strangers_file_needs_a_mean_and_is_priced_by_the_clock(tmp_path):
    write_classifier(tmp_path / "stranger.onnx")
    spec = str(tmp_path / "stranger.onnx")
    with pytest.raises(errors.UnsupportedModelError, match=r"give mean and std \(--mean and --st"):
        load_model(spec)
    with pytest.raises(errors.InvalidValueError, match="one number for each of the model's 3"):
        load_model(spec, mean=[0.5], std=[0.5])
    model, preprocessing, name = load_model(spec, mean=[0.5] * 3, std=[1] * 3, crop=0.9)
    assert preprocessing == Preprocessing(SIZE[1:], (0.5,) * 3, (1.0,) * 3, crop_pct=0.9)
    assert name == model_name(model) == "stranger" and class_count(model) == 5
    with pytest.raises(errors.UnsupportedModelError, match="costs='measured'"):
        count_macs(model)
    loader = [(torch.randn(6, *SIZE), torch.arange(6) % 5)]
    assert costs_without_images(model, model, None) is None
    assert agflow.predict(model, model, loader).costs.unit == "ms"
    assert agflow.predict(model, model, loader, costs=(1, 2)).costs.unit == "x"
    cascade = agflow.Cascade(model, model, 0.5)
    assert cascade(loader[0][0]).shape == (6, 5) and cascade.costs.unit == "ms"
    assert agflow.evaluate(model, loader).images == 6


def test_images_that_do_not_fit_are_refused(pair):
    _, _, folder = pair
    heavy = agflow.load(folder / "heavy.onnx")
    with pytest.raises(errors.ShapeError, match=r"expected \[B, 3, 32, 32\]"):
        agflow.evaluate(heavy, [(torch.randn(2, 3, 16, 16), torch.arange(2))])


def test_what_needs_gradients_or_layers_refuses_by_name(pair, tmp_path):
    light, _, folder = pair
    expert, loader = agflow.load(folder / "heavy.onnx"), batches()
    for attempt in (
        lambda: agflow.calibrate(expert, loader),
        lambda: agflow.finetune(expert, loader),
        lambda: agflow.shrink(expert, loader, macs=0.5),
        lambda: agflow.save(expert, tmp_path / "folder"),
        lambda: agflow.export(expert, tmp_path / "again.onnx"),
        lambda: at_image_size(expert, 16),
        lambda: agflow.models.split(expert, 1),
        lambda: agflow.models.only_classes(expert, [0, 1]),
        lambda: agflow.models.describe_groups(expert),
        lambda: agflow.design_cascade(expert, loader, loader),
    ):
        with pytest.raises(errors.UnsupportedModelError, match="heavy.onnx is an exported expert"):
            attempt()
    assert not list(tmp_path.iterdir())
    teacher = agflow.training.Distillation(expert, share=0.5)
    assert len(agflow.finetune(copy.deepcopy(light), loader, epochs=1, distillation=teacher)) == 1


def test_agreement_compares_answers_and_no_features(pair):
    _, heavy, folder = pair
    found = agflow.evaluation.evaluate_agreement(
        agflow.load(folder / "heavy.onnx"), heavy, batches()
    )
    assert found.answers.value == 1 and found.cosine is None and found.neighbours is None


def test_damaged_metadata_are_named(tmp_path):
    text = json.dumps({"preprocessing": {"input_size": [4, 6]}, "macs": "many"})
    write_classifier(tmp_path / "m.onnx", metadata=text)
    with pytest.raises(errors.CorruptFileError, match="preprocessing in the metadata of .*m.onnx"):
        load_model(str(tmp_path / "m.onnx"))
