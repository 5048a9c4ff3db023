"""Exported experts through the commands: an int8 cascade in one step, and its files as experts."""

import json

import numpy as np
import pytest
import torch
from small_vits import made, of_timm

import agflow
from agflow import commands, errors
from agflow.data.preprocessing import Preprocessing
from agflow.models import at_image_size

PREPROCESSING = Preprocessing((32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
IMAGES = 400


def call(name, **options):
    defaults = {"batch_size": 50, "seed": 0, "device": "cpu", "dtype": "float32"}
    return json.loads(getattr(commands, name)(json.dumps({**defaults, **options})))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A cascade folder, and images that its heavy expert labelled, with some errors."""
    folder = tmp_path_factory.mktemp("world")
    heavy = made(of_timm)
    light = at_image_size(heavy, 16)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
    x = PREPROCESSING.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        labels = heavy(x).argmax(1).numpy()
    labels[::20] = (labels[::20] + 1) % 10
    np.savez(folder / "images.npz", x=pixels, y=labels)
    batches = [(x, torch.from_numpy(labels))]
    router = agflow.calibrate_router(agflow.predict(light, heavy, batches), tolerance=0.1)
    cascade = agflow.Cascade(light, heavy, router)
    agflow.save(cascade, folder / "cascade", preprocessing=PREPROCESSING)
    return folder


@pytest.mark.slow
def test_an_int8_cascade_in_one_step_and_its_files_as_experts(world, tmp_path):
    data, output = f"npz:{world / 'images.npz'}", str(tmp_path / "int8")
    asked = {"cascade": str(world / "cascade"), "quantize": "int8-dynamic", "data": data}
    found = call("export", **asked, output=output, tolerance=0.3)
    router = found["router"]
    assert (router["target"], router["limit"], router["samples"]) == ("accuracy", 0.3, 300)
    assert found["quantization"]["heavy"]["images"] == 100
    assert "heavy.onnx: int8-dynamic, " in found["summary"] and "README.md" in found["summary"]
    served = agflow.load(output)
    assert served.router.threshold == router["threshold"]

    light, heavy = f"{output}/light.onnx", f"onnx:{output}/heavy.onnx"
    pair = {"light": light, "heavy": heavy, "features": False, "second_view": False}
    kept = str(tmp_path / "p.arrow")
    predicted = call("predict", **pair, data=data, output=kept, costs="measured")
    assert predicted["images"] == IMAGES and predicted["costs"]["unit"] == "ms"
    predictions = agflow.Predictions.load(kept)
    assert json.loads(predictions.metadata["agflow.clock"])["batch"] == 50
    with pytest.raises(errors.InvalidValueError, match="also tuned an expert"):
        agflow.calibrate_router(predictions, tolerance=0.3)

    dense = {"dense": str(world / "cascade" / "heavy")}
    evaluated = call("evaluate", model=f"{output}/heavy.onnx", data=data, **dense)
    assert evaluated["images"] == IMAGES and evaluated["agreement"]["answers"]["value"] > 0.9
    with pytest.raises(errors.UnsupportedModelError, match="light.onnx is an exported expert"):
        call("calibrate", model=light, data=data, output="s", groups=["mlp"], batches=1)


def test_a_model_is_quantised_by_the_command(world, tmp_path):
    data, output = f"npz:{world / 'images.npz'}", str(tmp_path / "heavy.onnx")
    model = {"model": str(world / "cascade" / "heavy"), "opset": 18, "output": output}
    found = call("export", **model, data=data, quantize="int8-static")
    noted = found["quantization"]
    assert (noted["images"], noted["calibration_images"]) == (IMAGES - 128, 128)
    assert noted["method"] == "int8-static" and "points" in found["summary"]
    with pytest.raises(errors.InvalidValueError, match=r"needs images \(--data\)"):
        call("export", **model, quantize="int8")
    found = call("export", **model)
    assert found["difference"] < 1e-4 and "quantization" not in found


def test_an_expert_of_another_normalisation_is_refused(world, tmp_path):
    heavy = agflow.load(world / "cascade" / "heavy")
    other = Preprocessing((32, 32), (0.4, 0.5, 0.5), (0.25, 0.25, 0.25))
    agflow.export(heavy, tmp_path / "light.onnx", preprocessing=other)
    pair = {"light": str(tmp_path / "light.onnx"), "heavy": str(world / "cascade" / "heavy")}
    with pytest.raises(errors.InvalidValueError, match="mean .0.4, 0.5, 0.5., the heavy expert"):
        call(
            "predict",
            **pair,
            data=f"npz:{world / 'images.npz'}",
            output=str(tmp_path / "p.arrow"),
            features=False,
            second_view=False,
        )


def test_a_file_is_compared_with_a_model_whose_weights_are_given(world, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "zoo_of_one.py").write_text(
        "from small_vits import made, of_timm\n\n\ndef heavy():\n    return made(of_timm)\n"
    )
    heavy = agflow.load(world / "cascade" / "heavy")
    agflow.export(heavy, tmp_path / "heavy.onnx", preprocessing=PREPROCESSING)
    weights = str(world / "cascade" / "heavy" / "model.safetensors")
    file, dense = str(tmp_path / "heavy.onnx"), "zoo_of_one:heavy"
    data = {"data": f"npz:{world / 'images.npz'}", "limit": 40}
    for pair in ({"model": file, "dense": dense}, {"model": dense, "dense": file}):
        means = {"mean": ["0.5"] * 3, "std": ["0.25"] * 3} if pair["model"] == dense else {}
        found = call("evaluate", **pair, **data, **means, weights=weights)
        assert found["agreement"]["answers"]["value"] == 1
