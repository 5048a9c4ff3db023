"""Models by name: folders of other libraries, functions in the working folder, early refusals."""

import json
import socket
import sys
import time

import numpy as np
import pytest
import small_vits
import timm
import torch

import agflow
from agflow import errors
from agflow.models.fitting import check_groups, request_check
from agflow.models.load import load_model

MEAN = [0.1, 0.2, 0.3]


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """A Hugging Face folder and its model."""
    import transformers

    folder = tmp_path_factory.mktemp("models") / "vit"
    model = small_vits.made(small_vits.of_transformers)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=MEAN, image_std=[0.5] * 3
    ).save_pretrained(folder)
    return folder, model


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return tmp_path


def refusal(spec, error, **given):
    with pytest.raises(error) as caught:
        load_model(spec, **given)
    text = str(caught.value)
    assert "\n" not in text, text
    return text


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_hugging_face_folder_is_a_model(hugging_face, prefix):
    folder, saved = hugging_face
    model, preprocessing, name = load_model(f"{prefix}{folder}")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images).logits, saved(images).logits)
    assert name == "vit" and list(preprocessing.mean) == MEAN and not model.training


def test_a_timm_folder_is_a_model(tmp_path):
    import timm

    model = timm.create_model("test_vit", num_classes=3).eval()
    timm.models.save_for_hf(model, tmp_path / "timm", safe_serialization=True)
    loaded, _, name = load_model(str(tmp_path / "timm"))
    images = torch.rand(1, 3, 160, 160)
    assert torch.equal(loaded(images), model(images)) and name == "timm"


def test_a_folder_without_the_classifier_is_refused(hugging_face, tmp_path):
    hugging_face[1].vit.save_pretrained(tmp_path / "body")
    assert "classifier" in refusal(f"hf:{tmp_path / 'body'}", errors.CorruptFileError)


def test_folders_that_are_no_models(tmp_path):
    assert "save_pretrained" in refusal("hf:google/vit-base", errors.FileError)
    (tmp_path / "config.json").write_text("{}")
    assert "without hf:" in refusal(f"hf:{tmp_path}", errors.InvalidValueError)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert "model.safetensors" in refusal(str(tmp_path), errors.CorruptFileError)
    code = {"model_type": "new", "auto_map": {"AutoConfig": "new.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    (tmp_path / "new.py").write_text("raise SystemExit('ran')")
    refusal(str(tmp_path), errors.CorruptFileError)


def test_functions_are_found_in_the_working_folder(working_folder):
    (working_folder / "parts_of_it.py").write_text(
        "from small_vits import made, of_timm\ndef build():\n    return made(of_timm)\n"
    )
    (working_folder / "models_of_mine.py").write_text(
        "import parts_of_it\n"
        "class Zoo:\n"
        "    @staticmethod\n"
        "    def small():\n        return parts_of_it.build()\n"
        "def make():\n    return Zoo.small()\n"
        "def fails():\n    raise OSError('no such\\nthing')\n"
        "def ends():\n    raise SystemExit(3)\n"
        "def number():\n    return 3\n"
        "def asks(width):\n    return width\n"
    )
    (working_folder / "broken_one.py").write_text("def f(:\n")
    for spec in ("models_of_mine:make", "models_of_mine:Zoo.small"):
        assert agflow.count_macs(load_model(spec)[0]) > 0
    for function, words in {
        "mak": "did you mean make?",
        "fails": "raised OSError: no such",
        "ends": "raised SystemExit",
        "asks": "without arguments",
        "number": "gave a int",
    }.items():
        assert words in refusal(f"models_of_mine:{function}", errors.InvalidValueError)
    assert "SyntaxError" in refusal("broken_one:f", errors.InvalidValueError)
    assert "write models_of_mine:make" in refusal(
        "models_of_mine.py:make", errors.InvalidValueError
    )
    assert "ModuleNotFoundError" in refusal("models_of_nobody:make", errors.InvalidValueError)
    assert "did you mean timm:?" in refusal("tim:vit_base", errors.InvalidValueError)


@pytest.mark.parametrize(
    ("spec", "given", "error", "words"),
    [
        ("timm:diet_tiny_patch16_224", {}, errors.InvalidValueError, "deit_tiny_patch16_224"),
        ("torchvision:vit_b_61", {}, errors.InvalidValueError, "did you mean vit_b_16"),
        (
            "timm:deit_tiny_patch16_224",
            {"check": request_check(["embd"])},
            errors.InvalidValueError,
            "did you mean embed?",
        ),
        (
            "torchvision:vit_l_16",
            {"check": request_check(macs="200G")},
            errors.BudgetError,
            "the dense model has",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_weights_are_sought(
    spec, given, error, words, monkeypatch
):
    def no_network(*_args, **_given):
        raise AssertionError("weights were sought")

    monkeypatch.setattr(socket, "create_connection", no_network)
    assert words in refusal(spec, error, **given)


def test_without_a_network_the_cure_is_said_at_once(monkeypatch, tmp_path):
    def unreachable(*_args, **_given):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    begin = time.monotonic()
    text = refusal("timm:test_vit", errors.FileError)
    assert "no network" in text and "--weights" in text
    assert time.monotonic() - begin < 20  # and not the minute of five more tries


def test_images_are_prepared_as_asked(hugging_face):
    asked = {"crop": 0.875, "crop_mode": "center", "interpolation": "bilinear"}
    _, preprocessing, _ = load_model(str(hugging_face[0]), **asked)
    found = preprocessing.crop_pct, preprocessing.crop_mode, preprocessing.interpolation
    assert found == (0.875, "center", "bilinear") and list(preprocessing.mean) == MEAN
    for wrong in ({"crop": -1}, {"crop_mode": "middle"}, {"interpolation": "cubic"}):
        name = next(iter(wrong)).replace("crop", "crop_pct", 1) if "crop" in wrong else ""
        assert name in refusal(str(hugging_face[0]), errors.InvalidValueError, **wrong)
    assert "its own crop" in refusal("example", errors.InvalidValueError, crop=0.9)


def test_commands_take_hugging_face_folders(hugging_face, working_folder):
    from agflow import commands
    from agflow.commands.entry import load_light, load_role

    folder = str(hugging_face[0])
    assert load_light({"light": folder})[1] == ""
    assert load_role({"heavy": f"hf:{folder}"}, "heavy")[2] == "vit"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.savez("images.npz", x=pixels, y=np.arange(20) % 10)
    form = {"data": "npz:images.npz", "seed": 0, "batch_size": 10}
    predicted = json.loads(
        commands.predict(
            json.dumps(
                {
                    **form,
                    "light": folder,
                    "heavy": folder,
                    "output": "p.arrow",
                    "features": False,
                    "second_view": False,
                }
            )
        )
    )
    assert predicted["light_accuracy"] == predicted["heavy_accuracy"]


def test_a_traced_model_is_checked_before_and_after_it_has_its_weights():
    check = request_check(["heads"])
    with torch.device("meta"):
        check(timm.create_model("resnet10t"))  # without values it cannot be traced
    with pytest.raises(errors.InvalidValueError, match="expected some of: block, conv, stage"):
        check(timm.create_model("resnet10t").eval())


def test_groups_are_those_of_the_model(example):
    check_groups(example[0], ["mlp", "block"])
    check_groups(example[0], ["mlp", "conv", "stage"])  # known kinds, one of which it has
    with pytest.raises(errors.InvalidValueError, match="did you mean heads"):
        check_groups(example[0], ["head"])
    for groups in (["conv"], ["conv", "stage"], [], ["mlp", "neurons"]):
        with pytest.raises(errors.InvalidValueError, match="block, embed, head_dim, heads, mlp"):
            check_groups(example[0], groups)
