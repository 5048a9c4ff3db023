"""Expert folders: an exact round trip, and one clear error for everything wrong."""

import hashlib
import json
import os
import pathlib
import shutil
import time

import pytest
import timm
import torch
from forging import forge_json
from hypothesis import HealthCheck, given, settings, strategies as st

from agflow.data.datasets import EXAMPLE
from agflow.data.preprocessing import Preprocessing
from agflow.errors import AgflowError, CorruptFileError, FileError, UnsupportedModelError
from agflow.models import describe, model_name
from agflow.models.expert import EXPERT_FOLDER, expert_preprocessing, load_expert, save_expert
from agflow.pruning.pruner import prune

STORED = pathlib.Path(__file__).parents[1] / "stored"
PREPROCESSING = Preprocessing((32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "bilinear", 0.9)


def test_round_trip_without_difference(vit, plan_of, random_keep, images, tmp_path):
    for number, model in enumerate((vit, prune(vit, plan_of(vit, random_keep(vit, 3)), [images]))):
        save_expert(model, tmp_path / str(number), preprocessing=PREPROCESSING)
        loaded = load_expert(tmp_path / str(number))
        assert torch.equal(loaded(images[0]), model(images[0])) and not loaded.training
        assert all(
            torch.equal(tensor, model.state_dict()[name])
            for name, tensor in loaded.state_dict().items()
        )
        assert all(
            parameter.requires_grad and not parameter.is_meta for parameter in loaded.parameters()
        )
        assert describe(loaded) == describe(model)
        assert expert_preprocessing(tmp_path / str(number)) == PREPROCESSING


def test_names_survive_and_half_precision_too(tmp_path):
    model = (
        timm.create_model(
            "vit_tiny_patch16_224",
            img_size=28,
            patch_size=4,
            in_chans=1,
            num_classes=10,
            embed_dim=128,
            depth=2,
            num_heads=4,
        )
        .bfloat16()
        .train()
    )
    save_expert(model, tmp_path / "light")
    loaded = load_expert(tmp_path / "light")
    assert (
        model_name(loaded) == "vit_tiny_patch16_224"
        and loaded.head.weight.dtype == torch.bfloat16
        and model.training
    )
    save_expert(loaded, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (
        tmp_path / "light" / "config.json"
    ).read_text()


def test_the_folder_is_readable_without_agflow_and_holds_no_pickle(make_vit, tmp_path):
    from safetensors.torch import load_file

    model = make_vit()
    save_expert(model, tmp_path / "light", preprocessing=PREPROCESSING)
    assert sorted(path.name for path in (tmp_path / "light").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((tmp_path / "light" / "config.json").read_text())
    assert config["architecture"]["mlp"] == [96, 96, 96] and config["preprocessing"][
        "input_size"
    ] == [32, 32]
    assert load_file(tmp_path / "light" / "model.safetensors").keys() == model.state_dict().keys()
    assert (
        config["sha256"]["model.safetensors"]
        == hashlib.sha256((tmp_path / "light" / "model.safetensors").read_bytes()).hexdigest()
    )


def test_an_older_expert_is_replaced_and_nothing_else_is_left(make_vit, images, tmp_path):
    save_expert(make_vit(), tmp_path / "light")
    model = make_vit(depth=2)
    save_expert(model, tmp_path / "light")
    assert len(load_expert(tmp_path / "light").blocks) == 2
    assert os.listdir(tmp_path) == ["light"]


def test_a_failed_save_leaves_the_old_expert(make_vit, tmp_path, monkeypatch):
    save_expert(make_vit(), tmp_path / "light")
    before = (tmp_path / "light" / "config.json").read_text()
    monkeypatch.setattr(
        "agflow._utils.folders._put_in_place",
        lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(FileError, match="light cannot be written: No space left on device"):
        save_expert(make_vit(depth=2), tmp_path / "light")
    assert (tmp_path / "light" / "config.json").read_text() == before
    assert os.listdir(tmp_path) == ["light"]


def test_foreign_folders_and_files_are_left_alone(make_vit, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(FileError, match="is not an expert folder, so it is not replaced"):
            save_expert(make_vit(), tmp_path / name)
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_what_the_description_misses_is_refused_at_save(make_vit, tmp_path):
    model = make_vit()
    model.register_forward_hook(lambda module, inputs, logits: logits + 1)
    with pytest.raises(UnsupportedModelError, match="has a forward hook .* that changes"):
        save_expert(model, tmp_path / "light")
    with pytest.raises(UnsupportedModelError, match="Linear"):
        save_expert(torch.nn.Linear(2, 2), tmp_path / "light")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def saved(make_vit, tmp_path):
    save_expert(make_vit(), tmp_path / "light", preprocessing=PREPROCESSING)
    return tmp_path / "light"


def edit(folder, change):
    forge_json(folder / "config.json", change)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder):
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage, kind, message",
    [
        (lambda f: (f / "config.json").unlink(), FileError, "config.json cannot be read"),
        (
            lambda f: (f / "model.safetensors").unlink(),
            FileError,
            "model.safetensors cannot be read",
        ),
        (
            lambda f: (f / "config.json").write_text("{"),
            CorruptFileError,
            "config.json is not JSON",
        ),
        (
            lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
            CorruptFileError,
            "config.json is not JSON",
        ),
        (
            lambda f: (f / "config.json").write_text("[" * 100_000),
            CorruptFileError,
            "config.json is not JSON",
        ),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "vit"}'),
            CorruptFileError,
            "has no format, expected format 1 or 4",
        ),
        (
            lambda f: (f / "config.json").write_text("[]"),
            CorruptFileError,
            "holds a JSON list, expected an object",
        ),
        (
            lambda f: edit(f, lambda c: c.update(format=2)),
            CorruptFileError,
            "has format 2, expected format 1 or 4",
        ),
        (
            lambda f: edit(f, lambda c: c.pop("architecture")),
            CorruptFileError,
            "lacks 'architecture'",
        ),
        (
            lambda f: edit(f, lambda c: c["architecture"].update(mlp=[96, 95, 96])),
            CorruptFileError,
            "does not describe the weights beside it",
        ),
        (
            lambda f: edit(f, lambda c: c["architecture"].update(heads=[4] * 4)),
            CorruptFileError,
            "architecture",
        ),
        (
            lambda f: edit(
                f, lambda c: c["architecture"]["arguments"].update(img_size=[10**9, 10**9])
            ),
            CorruptFileError,
            "config.json",
        ),
        (
            lambda f: edit(f, lambda c: c["architecture"]["arguments"].update(patch_size=0)),
            CorruptFileError,
            "architecture",
        ),
        (
            lambda f: edit(f, lambda c: c.update(architecture="vit")),
            CorruptFileError,
            "config.json",
        ),
        (truncate, CorruptFileError, "model.safetensors is damaged"),
        (flip, CorruptFileError, "model.safetensors is damaged"),
    ],
)
def test_damage_is_one_clear_error(saved, damage, kind, message):
    damage(saved)
    with pytest.raises(kind, match=message) as raised:
        load_expert(saved)
    assert "\n" not in str(raised.value)


def test_missing_folders_and_preprocessing(make_vit, saved, tmp_path):
    with pytest.raises(FileError, match="nowhere is missing"):
        load_expert(tmp_path / "nowhere")
    with pytest.raises(FileError, match="config.json is missing|expected a folder"):
        load_expert(saved / "config.json")
    edit(saved, lambda config: config["preprocessing"].pop("mean"))
    with pytest.raises(CorruptFileError, match="preprocessing in .* is damaged"):
        expert_preprocessing(saved)
    save_expert(make_vit(), tmp_path / "bare")
    with pytest.raises(FileError, match="holds no preprocessing"):
        expert_preprocessing(tmp_path / "bare")


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.pop("crop_pct"),
        lambda p: p.pop("interpolation"),
        lambda p: p.update(colour="RGB"),
        lambda p: p.update(crop_pct=0),
        lambda p: p.update(crop_pct="1"),
        lambda p: p.update(input_size=[32]),
        lambda p: p.update(input_size=[32, 10**9]),
        lambda p: p.update(input_size=[32.0, 32]),
        lambda p: p.update(std=[0.2, 0, 0.1]),
        lambda p: p.update(mean=["0", "0", "0"]),
        lambda p: p.update(interpolation="cubist"),
    ],
)
def test_a_preprocessing_that_none_has_is_refused(saved, change):
    edit(saved, lambda config: change(config["preprocessing"]))
    with pytest.raises(CorruptFileError, match="preprocessing in .* is damaged"):
        expert_preprocessing(saved)


def test_every_flipped_bit_of_the_config_is_found(saved):
    """Also those that would give another preprocessing, or other logits without an error."""
    path = saved / "config.json"
    whole = path.read_bytes()
    for position in range(0, 8 * len(whole), 61):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CorruptFileError):
            expert_preprocessing(saved)


@pytest.mark.parametrize("depth", [1000, 50_000])
def test_a_config_that_describes_far_more_than_the_weights_costs_nothing(saved, depth):
    def deeper(config):
        for name in ("heads", "mlp", "inner"):
            config["architecture"][name] = config["architecture"][name][:1] * depth

    edit(saved, deeper)
    began = time.process_time()
    with pytest.raises(CorruptFileError, match="of a model with far more than 44 tensors"):
        load_expert(saved)
    assert time.process_time() - began < 2


def test_pipes_and_endless_files_are_refused_before_they_are_read(saved):
    for name in ("config.json", "model.safetensors"):
        content = (saved / name).read_bytes()
        (saved / name).unlink()
        os.mkfifo(saved / name)
        with pytest.raises(FileError, match=f"{name} is no regular file"):
            load_expert(saved)
        (saved / name).unlink()
        (saved / name).symlink_to("/dev/zero")
        with pytest.raises(FileError, match=f"{name} is no regular file"):
            load_expert(saved)
        (saved / name).unlink()
        (saved / name).write_bytes(content)
    (saved / "config.json").write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(CorruptFileError, match="config.json is larger than 1048576 bytes"):
        load_expert(saved)


def test_a_checkpoint_of_another_library_is_left_alone(make_vit, tmp_path):
    """Each has a config.json."""
    folder = tmp_path / "vit-base"
    folder.mkdir()
    files = {"config.json": '{"architectures": ["ViT"], "format": 4}', "pytorch_model.bin": "w"}
    for name, content in files.items():
        (folder / name).write_text(content)
    with pytest.raises(FileError, match="vit-base exists and is not an expert folder"):
        save_expert(make_vit(), folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == files


def test_experts_of_the_first_format_are_read_and_replaced(make_vit, tmp_path):
    shutil.copytree(STORED / "cascade-1" / "light", tmp_path / "light")
    model = load_expert(tmp_path / "light")
    images = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    torch.testing.assert_close(
        model(images)[0, :3], torch.tensor([0.0588848, 0.0014483, 0.0419184])
    )
    assert expert_preprocessing(tmp_path / "light").std == (0.2, 0.2, 0.1)
    save_expert(make_vit(), tmp_path / "light")
    assert len(load_expert(tmp_path / "light").blocks) == 3
    assert EXPERT_FOLDER.fault(EXAMPLE / "heavy") is None
    shutil.copytree(EXAMPLE / "heavy", tmp_path / "example")
    shutil.copy(STORED / "example-1.json", tmp_path / "example" / "config.json")
    assert describe(load_expert(tmp_path / "example")) == describe(load_expert(EXAMPLE / "heavy"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_fuzzed_configs_load_or_raise_our_errors(saved, data):
    config = json.loads((saved / "config.json").read_text())
    place = data.draw(
        st.sampled_from([config, config["architecture"], config["architecture"]["arguments"]])
    )
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    scratch = saved.parent / "fuzzed"
    scratch.mkdir(exist_ok=True)
    (scratch / "config.json").write_text(json.dumps(config))
    forge_json(scratch / "config.json", lambda content: None)
    (scratch / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    for read in (load_expert, expert_preprocessing):
        try:
            read(scratch)
        except AgflowError:
            pass
