"""Folders of exported cascades: loaded as cascades, refused where damaged or of another kind."""

import json

import foreign_onnx
import pytest
import torch
from foreign_onnx import write_classifier

import agflow
from agflow import errors
from agflow.cascade.export_file import EXPORT_FOLDER

SIZE = (foreign_onnx.CHANNELS, foreign_onnx.HEIGHT, foreign_onnx.WIDTH)


@pytest.fixture
def folder(tmp_path):
    """A folder as an export makes it, of two small files."""
    for role in ("light", "heavy"):
        write_classifier(tmp_path / f"{role}.onnx", metadata=json.dumps({"macs": 360}))
    light, heavy = (agflow.load(tmp_path / f"{role}.onnx") for role in ("light", "heavy"))
    predictions = agflow.predict(light, heavy, batches())
    agflow.calibrate_router(predictions, escalation=0.9).save(tmp_path / "router.json")
    EXPORT_FOLDER.seal(tmp_path, {"files": [{"file": "light.onnx"}, {"file": "heavy.onnx"}]})
    return tmp_path


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(40, *SIZE, generator=generator), torch.arange(40) % 5)]


def test_a_folder_is_the_cascade_of_its_files(folder):
    cascade, (x, _) = agflow.load(folder), batches()[0]
    assert cascade.router == agflow.Router.load(folder / "router.json")
    assert cascade.costs.unit == "MACs" and cascade.costs.heavy == 360
    torch.testing.assert_close(cascade(x), agflow.load(folder / "heavy.onnx")(x))
    with pytest.raises(errors.InvalidValueError, match="leave model out"):
        agflow.load(folder, torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["light.onnx", "heavy.onnx", "router.json"])
def test_damage_is_named(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(errors.CorruptFileError, match=f"{name} is damaged"):
        agflow.load(folder)
    (folder / name).unlink()
    with pytest.raises(errors.FileError, match=name):
        agflow.load(folder)


def test_exports_that_are_no_onnx_files_are_refused(folder):
    files = ["light.pt2", "heavy.pt2"]
    for name in files:
        (folder / name).touch()
    EXPORT_FOLDER.seal(folder, {"files": [{"file": name} for name in files]})
    with pytest.raises(errors.UnsupportedModelError, match="is an export of light.pt2"):
        agflow.load(folder)


def test_a_prefix_that_does_not_say_its_blocks_is_refused(folder):
    write_classifier(folder / "prefix.onnx")
    files = ["prefix.onnx", "light.onnx", "heavy.onnx"]
    EXPORT_FOLDER.seal(folder, {"files": [{"file": name} for name in files]})
    with pytest.raises(errors.CorruptFileError, match="prefix.onnx says shared_blocks None"):
        agflow.load(folder)
