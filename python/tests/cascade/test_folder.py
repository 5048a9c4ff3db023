"""A cascade as a folder: the same bits, one clear error for every damage, run without torch."""

import copy
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from forging import forge_json
from timm.models.vision_transformer import VisionTransformer

import agflow
from agflow.cascade.priors import priors
from agflow.data.preprocessing import Preprocessing
from agflow.errors import (
    AgflowError,
    CorruptFileError,
    FileError,
    InvalidValueError,
    UnsupportedModelError,
)
from agflow.models import adapter_for
from agflow.models.expert import expert_preprocessing, expert_tuning

STORED = pathlib.Path(__file__).parents[1] / "stored"
PREPROCESSING = Preprocessing((32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
IMAGES = 40


@pytest.fixture(scope="module")
def experts():
    """A heavy expert and a light one that lost half of the MLP behind their common first block."""
    torch.manual_seed(0)
    heavy = VisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=32, depth=2, num_heads=2
    ).eval()
    light = copy.deepcopy(heavy)
    adapter_for(light).cut(
        light,
        next(layer for layer in adapter_for(heavy).layers(heavy) if layer.name == "blocks.1.mlp"),
        torch.arange(64),
    )
    return light, heavy


@pytest.fixture(scope="module")
def x():
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def make(experts, x):
    """Make a cascade that escalates 15 of the images; its router has their threshold."""
    light, heavy = experts
    labels = torch.randint(10, (IMAGES,), generator=torch.Generator().manual_seed(2))
    router = agflow.calibrate_router(agflow.predict(light, heavy, [(x, labels)]), escalation=0.9)

    def make(light=light, answers="heavy", **how):
        with torch.no_grad():
            certainty = np.sort(priors(light(x))[1]["max_probability"])
        forced = dataclasses.replace(
            router,
            prior="max_probability",
            threshold=float(certainty[14:16].astype(np.float64).mean()),
            answers=answers,
            light_weight=0.4 if answers == "ensemble" else 0.0,
        )
        return agflow.Cascade(light, heavy, forced, **how)

    return make


@pytest.mark.parametrize("how", [{}, {"answers": "ensemble", "shared_blocks": 1, "max_batch": 16}])
def test_round_trip_without_difference(make, x, tmp_path, how):
    cascade = make(**how)
    agflow.save(cascade, tmp_path / "cascade", preprocessing=PREPROCESSING, tuning="12 34")
    loaded = agflow.load(tmp_path / "cascade")
    assert (
        torch.equal(loaded(x), cascade(x))
        and loaded.ledger == cascade.ledger
        and cascade.ledger.escalated == 15
    )
    assert (loaded.router, loaded.shared_blocks, loaded.max_batch) == (
        cascade.router,
        cascade.shared_blocks,
        cascade.max_batch,
    )
    assert not any(module.training for module in loaded.modules())
    for role in ("light", "heavy"):
        assert (
            expert_preprocessing(tmp_path / "cascade" / role) == PREPROCESSING
            and expert_tuning(tmp_path / "cascade" / role) == "12 34"
        )
    assert sorted(os.listdir(tmp_path / "cascade")) == [
        "README.md",
        "cascade.json",
        "heavy",
        "light",
        "router.json",
    ]
    readme = (tmp_path / "cascade" / "README.md").read_text()
    assert ("share the embeddings and the first block" in readme) == bool(how)
    assert ("The ensemble of both experts answers these" in readme) == bool(how)


def blocks(readme):
    """(language, code) of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)


def test_the_readme_runs(make, x, tmp_path, monkeypatch):
    cascade = make(shared_blocks=1)
    agflow.save(cascade, tmp_path / "cascade", preprocessing=PREPROCESSING)
    readme = (tmp_path / "cascade" / "README.md").read_text()
    exported = []
    monkeypatch.setattr(
        agflow.exporting, "export_cascade", lambda *given: exported.append(given), raising=False
    )
    names = {"images": x, "image": x[3]}
    for language, code in blocks(readme):
        assert language == "python"
        exec(code.replace("path of this folder", str(tmp_path / "cascade")), names)
    assert torch.equal(names["logits"], cascade(x)) and names["preprocessing"] == PREPROCESSING
    torch.testing.assert_close(names["logits_of_image"], names["logits"][3], rtol=1e-4, atol=1e-5)
    assert exported == [(names["cascade"], "exported")]


def test_the_ensemble_is_the_combination_of_the_core(make, experts, x):
    light, heavy = experts
    logits = make(answers="ensemble")(x)
    with torch.no_grad():
        escalates = torch.tensor(priors(light(x))[1]["max_probability"] < make().threshold)
        expected = 0.4 * light(x).double().log_softmax(1) + 0.6 * heavy(x).double().log_softmax(1)
    torch.testing.assert_close(
        logits[escalates].double(), expected[escalates], rtol=1e-5, atol=1e-5
    )
    assert torch.equal(logits[~escalates], light(x)[~escalates]) and escalates.sum() == 15


def test_a_light_expert_of_smaller_images_comes_back(make, experts, x, tmp_path):
    cascade = make(agflow.models.at_image_size(experts[0], 16))
    agflow.save(cascade, tmp_path / "cascade")
    assert torch.equal(agflow.load(tmp_path / "cascade")(x), cascade(x))


def test_an_older_cascade_is_replaced_and_anything_else_left_alone(make, tmp_path):
    agflow.save(make(), tmp_path / "cascade")
    agflow.save(make(max_batch=7), tmp_path / "cascade")
    assert agflow.load(tmp_path / "cascade").max_batch == 7
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(
        FileError, match="photos exists and is not a cascade folder, so it is not replaced"
    ):
        agflow.save(make(), tmp_path / "photos")
    with pytest.raises(FileError, match="cascade exists and is not an export of a cascade"):
        agflow.exporting.export_cascade(make(), tmp_path / "cascade")
    assert sorted(os.listdir(tmp_path)) == ["cascade", "photos"]


@pytest.mark.parametrize("version", [1, 4])
def test_a_stored_cascade_of_every_format_is_read_and_replaced(make, tmp_path, version):
    shutil.copytree(STORED / f"cascade-{version}", tmp_path / "cascade")
    loaded = agflow.load(tmp_path / "cascade")
    assert loaded.router.samples == 40 and len(loaded.heavy.blocks) == 2
    images = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    torch.testing.assert_close(
        loaded.light(images)[0, :3], torch.tensor([0.0588848, 0.0014483, 0.0419184])
    )
    (tmp_path / "cascade" / "light" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="cascade holds light/notes.txt, which agflow did not put"):
        agflow.save(make(), tmp_path / "cascade")
    (tmp_path / "cascade" / "light" / "notes.txt").unlink()
    agflow.save(make(max_batch=7), tmp_path / "cascade")
    assert agflow.load(tmp_path / "cascade").max_batch == 7


def test_what_a_user_added_to_an_export_is_left_alone(make, tmp_path, monkeypatch):
    def written(cascade, folder, *others):
        (folder / "light.pt2").write_text("light")
        return [{"file": "light.pt2", "takes": "images", "gives": "logits", "image_size": [1, 1]}]

    monkeypatch.setattr("agflow.exporting.cascade._export_experts", written)
    monkeypatch.setattr("agflow.exporting.cascade.export_readme", lambda *given: "how to run")
    folder = tmp_path / "exported"
    for _ in range(2):
        agflow.exporting.export_cascade(make(), folder, format="torch")
    (folder / "README.md").write_text("mine")
    with pytest.raises(FileError, match="holds README.md, which is not as agflow wrote it"):
        agflow.exporting.export_cascade(make(), folder, format="torch")
    assert (folder / "README.md").read_text() == "mine"


def test_a_failed_save_leaves_nothing_or_the_older(make, tmp_path, monkeypatch):
    broken = make()
    broken.heavy = copy.deepcopy(broken.heavy)
    broken.heavy.register_forward_hook(lambda module, inputs, logits: logits + 1)
    with pytest.raises(UnsupportedModelError, match="has a forward hook"):
        agflow.save(broken, tmp_path / "cascade")
    assert os.listdir(tmp_path) == []
    agflow.save(make(max_batch=3), tmp_path / "cascade")
    monkeypatch.setattr(
        "agflow.cascade.folder.cascade_readme",
        lambda *parts: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(
        FileError, match="a cascade folder .*cannot be written: No space left on device"
    ):
        agflow.save(make(), tmp_path / "cascade")
    assert agflow.load(tmp_path / "cascade").max_batch == 3 and os.listdir(tmp_path) == ["cascade"]


def test_a_bare_threshold_is_no_router(experts, tmp_path):
    for save in (agflow.save, agflow.exporting.export_cascade):
        with pytest.raises(InvalidValueError, match="bare threshold 0.5, expected a router"):
            save(agflow.Cascade(*experts, 0.5), tmp_path / "cascade")
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def saved(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "cascade"
    agflow.save(make(shared_blocks=1), folder)
    return folder


def edit(folder, change):
    forge_json(folder / "cascade.json", change)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage, kind, message",
    [
        (lambda f: (f / "cascade.json").unlink(), FileError, "cascade.json cannot be read"),
        (lambda f: (f / "router.json").unlink(), FileError, "router.json cannot be read"),
        (
            lambda f: (f / "light" / "config.json").unlink(),
            FileError,
            "light/config.json cannot be read",
        ),
        (
            lambda f: (f / "heavy" / "model.safetensors").unlink(),
            FileError,
            "heavy/model.safetensors cannot be read",
        ),
        (
            lambda f: flip(f / "router.json"),
            CorruptFileError,
            "router.json is damaged or of another cascade",
        ),
        (
            lambda f: flip(f / "heavy" / "config.json"),
            CorruptFileError,
            "heavy/config.json is damaged",
        ),
        (
            lambda f: flip(f / "light" / "model.safetensors"),
            CorruptFileError,
            "light/model.safetensors is damaged",
        ),
        (
            lambda f: (f / "cascade.json").write_bytes(b"\xff{"),
            CorruptFileError,
            "cascade.json is not JSON",
        ),
        (
            lambda f: (f / "cascade.json").write_text("[" * 100_000),
            CorruptFileError,
            "cascade.json is not JSON",
        ),
        (
            lambda f: (f / "cascade.json").write_text("[]"),
            CorruptFileError,
            "holds a JSON list, expected an object",
        ),
        (
            lambda f: edit(f, lambda c: c.update(format=2)),
            CorruptFileError,
            "has format 2, expected format 1 or 4",
        ),
        (
            lambda f: edit(f, lambda c: c.pop("sha256")),
            CorruptFileError,
            "lacks 'sha256'",
        ),
        (
            lambda f: edit(f, lambda c: c.update(shared_blocks="1")),
            CorruptFileError,
            "shared_blocks or max_batch in .* is no number",
        ),
        (
            lambda f: edit(f, lambda c: c["sha256"].pop("router.json")),
            CorruptFileError,
            "lacks router.json",
        ),
        (
            lambda f: edit(f, lambda c: c.update(shared_blocks=2)),
            CorruptFileError,
            "does not fit the experts .*do not share .*first 2 blocks",
        ),
        (lambda f: edit(f, lambda c: c.update(max_batch=-1)), CorruptFileError, "max_batch is -1"),
    ],
)
def test_damage_is_one_clear_error(saved, tmp_path, damage, kind, message):
    folder = tmp_path / "cascade"
    subprocess.run(["cp", "-r", saved, folder], check=True)
    damage(folder)
    with pytest.raises(kind, match=message) as raised:
        agflow.load(folder)
    assert "\n" not in str(raised.value)


def test_every_byte_of_cascade_json_may_go_wrong(saved, tmp_path):
    folder = tmp_path / "cascade"
    subprocess.run(["cp", "-r", saved, folder], check=True)
    whole = (folder / "cascade.json").read_bytes()
    for at in range(0, len(whole), 7):
        (folder / "cascade.json").write_bytes(
            whole[:at] + bytes([whole[at] ^ 0x11]) + whole[at + 1 :]
        )
        try:
            agflow.load(folder)
        except AgflowError:
            pass
    with pytest.raises(FileError, match="nowhere is missing, expected one made by agflow.save"):
        agflow.load(tmp_path / "nowhere")


RUN_README = """
import json, pathlib, subprocess, sys
sys.modules["torch"] = None
import numpy as np

names = {"images": np.load("../images.npy")}
for language, code in json.loads(sys.argv[1]):
    if language == "python":
        exec(code, names)
    else:
        command, *arguments = code.split()
        assert command == "agflow"
        subprocess.run([sys.executable, "-m", "agflow", *arguments], check=True)
np.save("../classes.npy", names["classes"])
np.save("../escalated.npy", names["escalated"])
"""


@pytest.mark.parametrize("shared_blocks", [0, 1])
def test_the_readme_of_an_export_runs_without_torch(make, x, tmp_path, shared_blocks):
    pytest.importorskip("onnxruntime")
    cascade = make(answers="ensemble", shared_blocks=shared_blocks)
    agflow.exporting.export_cascade(
        cascade, tmp_path / "exported", images=x, preprocessing=PREPROCESSING
    )
    about = json.loads((tmp_path / "exported" / "export.json").read_text())
    files = about["files"]
    assert about["costs"] == dataclasses.asdict(cascade.costs) and "class_names" not in about
    readme = (tmp_path / "exported" / "README.md").read_text()
    expected = ["prefix.onnx"] * bool(shared_blocks) + ["light.onnx", "heavy.onnx"]
    assert [entry["file"] for entry in files] == expected
    assert all(
        (tmp_path / "exported" / entry["file"]).exists() and f"`{entry['file']}`: " in readme
        for entry in files
    )
    np.save(tmp_path / "images.npy", x.numpy())
    path = [str(pathlib.Path(agflow.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", RUN_README, json.dumps(blocks(readme))],
        cwd=tmp_path / "exported",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "classes.npy"), cascade(x).argmax(1))
    assert len(np.load(tmp_path / "escalated.npy")) == cascade.last_call.escalated == 15


def test_exports_for_torch_and_of_smaller_images(make, experts, x, tmp_path):
    cascade = make(agflow.models.at_image_size(experts[0], 16))
    agflow.exporting.export_cascade(cascade, tmp_path / "exported", format="torch", images=x)
    light = torch.export.load(tmp_path / "exported" / "light.pt2").module()
    torch.testing.assert_close(light(x), cascade.light(x), rtol=1e-4, atol=1e-4)
    readme = (tmp_path / "exported" / "README.md").read_text()
    assert "`light.pt2`: images of 32x32 pixels to logits" in readme
    run = blocks(readme)[0][1].replace('"light.pt2"', f'"{tmp_path}/exported/light.pt2"')
    names = {"images": x.numpy()}
    exec(run.partition("agflow.cascade.Logits")[0], names)
    torch.testing.assert_close(
        torch.from_numpy(names["light_logits"]), cascade.light(x), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(
        InvalidValueError, match="the format is 'tflite', expected one of onnx, torch"
    ):
        agflow.exporting.export_cascade(cascade, tmp_path / "exported", format="tflite")
