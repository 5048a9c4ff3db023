"""Exported models: torch's logits in onnxruntime and torch.export, any batch size, no pickle."""

import json
import os
import pickle
import sys
import threading
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from small_vits import images_for, made, of_timm, of_torchvision, of_transformers

from agflow.cascade.cascade import Cascade
from agflow.data.preprocessing import Preprocessing
from agflow.errors import (
    DtypeError,
    FileError,
    InternalError,
    InvalidValueError,
    NonFiniteError,
    UnsupportedModelError,
)
from agflow.exporting.models import export, export_module
from agflow.models import logits_of
from agflow.pruning.pruner import prune

PREPROCESSING = Preprocessing((32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


@pytest.fixture
def light(make_vit, plan_of, random_keep, images):
    """A model that lost something of every group, left in training mode."""
    model = make_vit(depth=3, init_values=0.1, reg_tokens=2, drop_rate=0.5)
    kept = random_keep(model, 3, ("mlp", "heads", "head_dim", "embed", "block"))
    light = prune(
        model,
        plan_of(model, {**kept, "blocks.0.attn.branch": [], "blocks.1.attn.branch": [0]}),
        [images],
    )
    assert (
        light.blocks[1].attn.qk_width != light.blocks[1].attn.v_width != 12 and light.embed_dim < 48
    )
    return light.train()


def batches(images):
    return [images[:1], images[:5], images]


def test_onnx_gives_torchs_logits(light, images, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert (
        export(light, tmp_path / "light.onnx", images=images[0], preprocessing=PREPROCESSING) < 1e-5
    )
    session = onnxruntime.InferenceSession(
        tmp_path / "light.onnx", providers=["CPUExecutionProvider"]
    )
    assert light.training and all(parameter.requires_grad for parameter in light.parameters())
    light.eval()
    for batch in batches(images[0]):
        np.testing.assert_allclose(
            session.run(None, {"images": batch.numpy()})[0], light(batch).detach(), atol=1e-5
        )
    (inlet,), (outlet,) = session.get_inputs(), session.get_outputs()
    assert (inlet.name, inlet.shape, outlet.name, outlet.shape) == (
        "images",
        ["batch", 3, 32, 32],
        "logits",
        ["batch", 10],
    )
    about = json.loads(session.get_modelmeta().custom_metadata_map["agflow"])
    assert Preprocessing.from_dict(about["preprocessing"]) == PREPROCESSING and os.listdir(
        tmp_path
    ) == ["light.onnx"]


def test_torch_export_gives_torchs_logits_and_holds_no_pickle(light, images, tmp_path, monkeypatch):
    assert export(light, tmp_path / "light.pt2", preprocessing=PREPROCESSING) < 1e-5

    def refuse(*arguments, **options):
        raise AssertionError("unpickled")

    for place, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(place, name, refuse)
    extra = {"agflow.json": ""}
    loaded = torch.export.load(tmp_path / "light.pt2", extra_files=extra).module()
    light.eval()
    for batch in batches(images[0]):
        torch.testing.assert_close(loaded(batch), light(batch), atol=1e-5, rtol=0)
    assert json.loads(extra["agflow.json"])["preprocessing"]["input_size"] == [32, 32]
    with zipfile.ZipFile(tmp_path / "light.pt2") as archive:
        assert not any(
            archive.read(name).startswith((b"PK", b"\x80\x02")) for name in archive.namelist()
        )


@pytest.mark.parametrize("vit", ["registers", "qk_norm", "average_pool"], indirect=True)
def test_every_kind_of_model(vit, images, tmp_path):
    export(vit, tmp_path / "model.pt2", images=images[0])


LIGHT = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "transformers": of_transformers,
    "transformers_deit": lambda: of_transformers(
        "DeiT", "WithTeacher", attn_implementation="eager"
    ),
}


@pytest.mark.parametrize(
    "opset", [18, *(pytest.param(n, marks=pytest.mark.slow) for n in (20, 23))]
)
@pytest.mark.parametrize("name", LIGHT)
def test_light_experts_of_all_libraries_run_at_any_batch(
    name, opset, plan_of, random_keep, tmp_path
):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = made(LIGHT[name])
    kept = random_keep(model, 3, ("mlp", "heads", "head_dim", "embed", "block"))
    light = prune(model, plan_of(model, kept), compensate="none")
    export(light, tmp_path / "light.onnx", opset=opset, images=images_for(light, 1))
    session = onnxruntime.InferenceSession(tmp_path / "light.onnx")
    for count in (1, 3, 17):
        images = images_for(light, count)
        with torch.no_grad():
            expected = logits_of(light(images)).numpy()
        (logits,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(logits, expected, atol=1e-4 * abs(expected).max())


def test_a_batch_size_that_is_built_in_is_found(light, images, tmp_path, monkeypatch):
    """Also where one image was given: the file runs on several, too."""
    seen = []

    def run(path):
        return lambda batch: seen.append(len(batch)) or light(batch)

    monkeypatch.setattr("agflow.exporting.models._run_torch", run)
    export(light.eval(), tmp_path / "light.pt2", images=images[0][:1])
    assert sorted(seen) == [1, 3]


@pytest.mark.slow
def test_real_images(deit, photographs, tmp_path):
    """DeiT-Tiny on photographs, in both formats."""
    photos = next(iter(photographs))[0]
    for name in ("deit.onnx", "deit.pt2"):
        assert export(deit[0], tmp_path / name, images=photos, preprocessing=deit[1]) < 1e-5


def test_a_file_that_disagrees_never_gets_its_name(light, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "agflow.exporting.models._run_torch", lambda path: lambda images: light(images) + 0.1
    )
    (tmp_path / "light.pt2").write_text("older")
    with pytest.raises(InternalError, match="nothing was written"):
        export(light.eval(), tmp_path / "light.pt2")
    assert (tmp_path / "light.pt2").read_text() == "older" and os.listdir(tmp_path) == ["light.pt2"]


def test_a_missing_package_is_one_clear_error(light, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "agflow.exporting.models.find_spec", lambda name: None if name == "onnxruntime" else sys
    )
    with pytest.raises(
        InvalidValueError,
        match="needs onnxruntime, which .*: pip install onnx onnxscript onnxruntime",
    ):
        export(light, tmp_path / "light.onnx")
    export(light, tmp_path / "light.pt2")


def test_refusals(light, make_vit, tmp_path):
    with pytest.raises(
        InvalidValueError, match="the format of .*light.bin is None, expected one of onnx, torch"
    ):
        export(light, tmp_path / "light.bin")
    with pytest.raises(InvalidValueError, match="is 'tflite'"):
        export(light, tmp_path / "light.onnx", format="tflite")
    with pytest.raises(DtypeError, match="model.float"):
        export(make_vit().bfloat16(), tmp_path / "light.pt2")
    with pytest.raises(UnsupportedModelError, match="Linear"):
        export(torch.nn.Linear(2, 2), tmp_path / "light.pt2")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        export(light, tmp_path / "file" / "light.pt2")

    class Branching(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    with pytest.raises(UnsupportedModelError, match="torch cannot export Branching"):
        export(Branching(), tmp_path / "branching.pt2", images=torch.randn(2, 3, 8, 8))
    assert sorted(os.listdir(tmp_path)) == ["file"]


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.zeros(0, 3, 32, 32), r"a Tensor \(\[0, 3, 32, 32\]\)"),
        (torch.zeros(3, 32, 32), r"a Tensor \(\[3, 32, 32\]\)"),
        (np.zeros((2, 3, 32, 32)), r"a ndarray \(\[2, 3, 32, 32\]\)"),
        ([torch.zeros(2, 3, 32, 32)], r"a list \(no tensor\)"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, found, make_vit, tmp_path):
    with pytest.raises(InvalidValueError, match=f"images to compare on are {found}, expected a "):
        export(make_vit(), tmp_path / "model.pt2", images=images)
    assert os.listdir(tmp_path) == []


def test_a_file_takes_float32_whatever_it_was_compared_on(tmp_path):
    model, images = made(of_transformers), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    export(model, tmp_path / "model.pt2", images=images)
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert loaded(images.float()).dtype == torch.float32


def test_a_cascade_is_sent_to_its_own_export(make_vit, tmp_path):
    cascade = Cascade(make_vit(depth=1), make_vit(), 0.9)
    with pytest.raises(UnsupportedModelError, match=r"export_cascade\(cascade, folder\)"):
        export(cascade, tmp_path / "cascade.onnx")


def test_a_plain_module_needs_only_images(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    export(model, tmp_path / "exported", format="torch", images=torch.randn(2, 3, 4, 4))
    assert torch.export.load(tmp_path / "exported").module()(torch.randn(7, 3, 4, 4)).shape == (
        7,
        4,
    )


@pytest.mark.parametrize("opset", [0, -1, 99, True, "18", 18.0])
def test_an_opset_that_does_not_exist_is_refused(make_vit, tmp_path, opset):
    pytest.importorskip("onnx")
    with pytest.raises(InvalidValueError, match=rf"opset is {opset!r}, expected .* from 1 to \d+"):
        export(make_vit(), tmp_path / "model.onnx", opset=opset)
    assert os.listdir(tmp_path) == []


class Normed(torch.nn.Module):
    """One operator that opset 17 brought: torch writes 18 for whatever is below."""

    def forward(self, images):
        return torch.nn.functional.layer_norm(images.flatten(1), (12,))


@pytest.mark.parametrize("opset", [13, 17])
def test_the_opset_is_the_one_asked_for_or_an_error(tmp_path, opset):
    onnx, images = pytest.importorskip("onnx"), torch.randn(2, 3, 2, 2)
    path = tmp_path / "normed.onnx"
    if opset < 17:
        with pytest.raises(UnsupportedModelError, match=rf"wrote opset 18 where {opset} was asked"):
            export_module(Normed(), path, images, {}, opset=opset)
        assert os.listdir(tmp_path) == []
    else:
        export_module(Normed(), path, images, {}, opset=opset)
        assert [entry.version for entry in onnx.load(path).opset_import] == [opset]


def test_zero_of_zero_is_no_difference(make_vit, tmp_path, monkeypatch):
    model = make_vit()
    for parameter in model.head.parameters():
        parameter.data.zero_()
    assert export(model, tmp_path / "zero.pt2") == 0.0
    fresh = torchvision.models.VisionTransformer(32, 8, 1, 4, 48, 96, num_classes=3).eval()
    assert export(fresh, tmp_path / "fresh.pt2") == 0.0
    monkeypatch.setattr(
        "agflow.exporting.models._run_torch", lambda path: lambda images: model(images) + 1e-9
    )
    with pytest.raises(InternalError, match="differ from torch's by inf"):
        export(model, tmp_path / "other.pt2")
    model.head.bias.data[0] = float("nan")
    with pytest.raises(NonFiniteError, match="the model's own logits are not finite"):
        export(model, tmp_path / "nan.pt2")


def test_a_forward_of_its_own_is_left_out_or_refused(make_vit, tmp_path):
    model, images = make_vit(), torch.randn(3, 3, 32, 32)
    expected, inner = model(images), model.forward
    model.forward = lambda images: inner(images)
    export(model, tmp_path / "wrapped.pt2")
    exported = torch.export.load(tmp_path / "wrapped.pt2").module()
    torch.testing.assert_close(exported(images), expected)
    model.forward = lambda images: 2 * inner(images)
    with pytest.raises(UnsupportedModelError, match="has a forward of its own"):
        export(model, tmp_path / "changed.pt2")
    del model.forward
    model.lock = threading.Lock()
    with pytest.raises(UnsupportedModelError, match=r"model\.lock .*lock"):
        export(model, tmp_path / "locked.pt2")


class Features(torch.nn.Module):
    """A backbone that gives its maps by name."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.input_size = (3, 16, 16)

    def forward(self, x):
        return {"features": self.conv(x).relu()}


class Tokens(torch.nn.Module):
    """A network whose code takes the batch size as a number."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4)
        self.token = torch.nn.Parameter(torch.zeros(1, 8, 1))
        self.input_size = (3, 16, 16)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.conv(x).flatten(2)], 2)
        return self.fc(x.mean(2))


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_models_without_a_classifier_give_features(tmp_path, ending):
    model, path, images = (
        Features().eval(),
        tmp_path / f"features.{ending}",
        torch.randn(5, 3, 16, 16),
    )
    if ending == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
    assert export(model, path) < 1e-5
    if ending == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [output.name for output in session.get_outputs()] == ["features"]
        (found,) = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
    else:
        found = torch.export.load(path).module()(images)
    torch.testing.assert_close(found, model(images)["features"])


def test_a_batch_size_that_code_fixes_is_named_with_the_cure(tmp_path):
    with pytest.raises(UnsupportedModelError, match="for any batch size.*write x.shape"):
        export(Tokens().eval(), tmp_path / "tokens.pt2")
