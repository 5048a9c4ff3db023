"""An exported cascade in ONNX Runtime: the bits of its files, and no torch anywhere."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from forging import forge_json
from PIL import Image
from served import answers, filled, opened

import agflow
from agflow._utils.onnx_session import OnnxSession
from agflow.errors import CorruptFileError, DeviceError, FileError, InvalidValueError
from agflow.exporting import export_cascade
from agflow.serving.onnx_experts import shrunk

pytest.importorskip("onnxruntime")
OUTSIDE = [{"file": "light.onnx"}, {"file": "heavy./../x.onnx"}]
KINDS = ["ensemble", "fewer pixels", "in pieces"]


@pytest.fixture(scope="module")
def exports(kinds, x, preprocessing, tmp_path_factory):
    """Folders of exported cascades by their kind."""
    root = tmp_path_factory.mktemp("exported")
    for kind in ("ensemble", "fewer pixels"):
        export_cascade(kinds[kind], root / kind, images=x, preprocessing=preprocessing)
    pieces = shutil.copytree(root / "fewer pixels", root / "in pieces")
    forge_json(pieces / "export.json", lambda c: c.update(max_batch=5, checksum=c.pop("checksum")))
    return {kind: root / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_files_and_of_the_cascade(exports, kinds, kind, x):
    cascade = kinds["fewer pixels" if kind == "in pieces" else kind]
    served = opened(exports[kind], threads=1)
    for images in (x, x[:1], x):
        expected = cascade(images).numpy()
        found, rows = answers(served, images.numpy(), cascade)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert len(rows) == cascade.last_call.escalated
    run = lambda name, values: OnnxSession(exports[kind] / name, 1).run(values)
    size = 5 if kind == "in pieces" else len(x)
    pieces = [x[at : at + size].numpy() for at in range(0, len(x), size)]
    seen = [run("prefix.onnx", piece) for piece in pieces] if cascade.shared_blocks else pieces
    light = np.concatenate([run("light.onnx", piece) for piece in seen])
    heavy = run("heavy.onnx", np.concatenate(seen)[rows][:size])
    assert np.array_equal(filled(served.light, light.shape, x.numpy()), light)
    some = rows[:size].astype(np.int32)
    assert np.array_equal(filled(served.heavy, heavy.shape, x.numpy()[some], some), heavy)


def test_a_loaded_export_shares_its_prefix(exports, kinds, x, tmp_path):
    """``ensemble`` shares a block; what it answers and costs is what the cascade does."""
    loaded, cascade = agflow.load(exports["ensemble"]), kinds["ensemble"]
    assert loaded.shared_blocks == 1 and loaded.costs == cascade.costs
    for images in (x, x[:1]):
        torch.testing.assert_close(loaded(images), cascade(images), rtol=1e-4, atol=1e-4)
        assert loaded.last_call.escalated == cascade.last_call.escalated
        for expert, parent in ((loaded.light, cascade.light), (loaded.heavy, cascade.heavy)):
            torch.testing.assert_close(expert(images), parent(images), rtol=1e-4, atol=1e-4)
    prefix, light, heavy = loaded.parts
    seen = []
    prefix.register_forward_hook(lambda *_: seen.append(1))
    loaded(x)
    assert len(seen) == 1, "the prefix runs once for both experts"
    tokens = prefix(x)
    assert torch.equal(light(tokens), loaded.light(x))
    assert torch.equal(heavy(tokens), loaded.heavy(x))
    batches = [(x, torch.zeros(len(x), dtype=torch.long))]
    timed = agflow.predict(loaded.light, loaded.heavy, batches, shared_blocks=1, costs="measured")
    assert timed.costs.unit == "ms" and 0 < timed.costs.shared <= timed.costs.light
    with pytest.raises(InvalidValueError, match="exported behind 1 shared blocks"):
        agflow.Cascade(loaded.light, loaded.heavy, 0.5, shared_blocks=2)
    forged = shutil.copytree(exports["ensemble"], tmp_path / "old")
    forge_json(forged / "export.json", lambda c: c.pop("costs"))
    assert agflow.load(forged).costs.shared == cascade.router.ledger.shared_cost


@pytest.mark.parametrize("kind", ["fewer pixels", "in pieces"])
def test_answers_are_the_bits_of_the_loaded_export(exports, kind, x):
    loaded = agflow.load(exports[kind])
    served = opened(exports[kind], threads=torch.get_num_threads())
    found, rows = answers(served, x.numpy(), loaded)
    assert np.array_equal(found, loaded(x).numpy()) and len(rows) == loaded.last_call.escalated
    about = json.loads(served.describe(""))
    assert about["light_cost"] == loaded.costs.light and about["max_batch"] == loaded.max_batch


def test_what_is_served_is_described(exports, kinds):
    import onnxruntime

    for kind, max_batch in (("ensemble", None), ("in pieces", 5)):
        cascade = kinds["fewer pixels" if max_batch else kind]
        about = json.loads(opened(exports[kind], threads=2).describe(""))
        assert about.pop("router")["threshold"] == cascade.router.threshold
        assert about.pop("revision").isalnum()
        assert about == {
            "name": kind,
            "runtime": "onnxruntime",
            "runtime_version": onnxruntime.__version__,
            "channels": 3,
            "height": 32,
            "width": 32,
            "classes": 10,
            "class_names": None,
            "max_batch": max_batch,
            "light_cost": cascade.costs.light,
            "heavy_cost": cascade.costs.heavy,
            "shared_cost": cascade.costs.shared,
            "cost_unit": "MACs",
            "device": "cpu",
            "threads": 2,
        }


@pytest.mark.parametrize("size", [(16, 16), (20, 12), (31, 33), (40, 48)])
def test_images_are_resized_as_torch_does(size):
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
    found = torch.from_numpy(shrunk(images.numpy(), size))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_older_export_whose_light_file_takes_fewer_pixels(exports, kinds, x, tmp_path):
    """They named no digests, classes or costs either, and did not resize in the file."""
    cascade = kinds["fewer pixels"]
    folder = shutil.copytree(exports["fewer pixels"], tmp_path / "old")
    agflow.export(cascade.light, folder / "light.onnx")
    assert OnnxSession(folder / "light.onnx").image_size == (16, 16)
    files = [{"file": f"{role}.onnx"} for role in ("light", "heavy")]
    (folder / "export.json").write_text(json.dumps({"format": 1, "files": files}))
    served = opened(folder)
    found, _ = answers(served, x.numpy(), cascade)
    np.testing.assert_allclose(found, cascade(x).numpy(), rtol=1e-4, atol=1e-4)
    about = json.loads(served.describe(""))
    assert about["light_cost"] == cascade.router.ledger.light_cost
    assert (about["cost_unit"], about["class_names"]) == ("MACs", None)


def damage(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_what_cannot_be_opened_is_one_sentence(exports, tmp_path):
    folder = exports["fewer pixels"]
    with pytest.raises(DeviceError, match="device is 'cuda', expected cpu: .* ONNX Runtime on the"):
        opened(folder, device="cuda")
    with pytest.raises(InvalidValueError, match="whose files hold all of its models: leave model"):
        opened(folder, model="module:function")
    copied, files = shutil.copytree(folder, tmp_path / "torch"), ["light.pt2", "heavy.pt2"]
    for name in files:
        (copied / name).write_bytes(b"of torch.export")
    forge_json(copied / "export.json", lambda c: c.update(files=[{"file": name} for name in files]))
    with pytest.raises(InvalidValueError, match="light.pt2 is no ONNX file, .* format='onnx', or"):
        opened(copied)
    for name, change, error, match in (
        ("light.onnx", pathlib.Path.unlink, FileError, "light.onnx cannot be read: No such file"),
        ("heavy.onnx", damage, CorruptFileError, "heavy.onnx is damaged or of another cascade"),
        ("router.json", damage, CorruptFileError, "router.json is damaged or of another cascade"),
    ):
        copied = shutil.copytree(folder, tmp_path / name)
        change(copied / name)
        with pytest.raises(error, match=match):
            opened(copied)
    for number, files in enumerate(
        ([], [{"file": "light.onnx"}], ["light.onnx"], "light", [{}], OUTSIDE)
    ):
        copied = shutil.copytree(folder, tmp_path / f"files{number}")
        forge_json(copied / "export.json", lambda content, new=files: content.update(files=new))
        with pytest.raises(CorruptFileError, match="files in .*export.json are .*, expected those"):
            opened(copied)
    for number, (name, value) in enumerate(
        (("max_batch", "5"), ("class_names", [1]), ("costs", {"light": 1}))
    ):
        copied = shutil.copytree(folder, tmp_path / f"known{number}")
        change = lambda c, new={name: value}: c.update(**new, checksum=c.pop("checksum"))
        forge_json(copied / "export.json", change)
        with pytest.raises(CorruptFileError, match=f"{name} in .*export.json is .* did not write"):
            opened(copied)


WITHOUT_TORCH = """
import json, sys
BLOCKED = ("torch", "timm", "torchvision", "pyarrow", "transformers", "safetensors", "pandas")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocker())
import numpy as np
import agflow.serving

folder, images, file, logits, prepared = sys.argv[1:]
served = agflow.serving.open_cascade(json.dumps({"folder": folder, "threads": 1, "max_batch": 4}))
x = np.load(images)
found = np.empty((len(x), 10), np.float32)
served.light(memoryview(x), memoryview(found))
rows = np.arange(3, dtype=np.int32)
served.heavy(memoryview(np.ascontiguousarray(x[rows])), memoryview(rows), memoryview(found[:3]))
np.save(logits, found)
out = np.empty((3, 32, 32), np.float32)
served.prepare(memoryview(open(file, "rb").read()), memoryview(out))
np.save(prepared, out)
assert not {name.partition(".")[0] for name in sys.modules} & set(BLOCKED)
"""


def check_without_torch(python, exports, x, preprocessing, folder):
    """Serve an export in another Python and compare its answers with those of this one."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    image.save(folder / "x.png")
    np.save(folder / "images.npy", x.numpy())
    names = ["images.npy", "x.png", "logits.npy", "prepared.npy"]
    given = [exports["ensemble"], *(folder / name for name in names)]
    done = subprocess.run(
        [str(word) for word in (python, "-c", WITHOUT_TORCH, *given)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = preprocessing.normalise(preprocessing.pixels(image))
    assert np.array_equal(np.load(folder / "prepared.npy"), expected.numpy())
    served, rows = opened(exports["ensemble"], threads=1), np.arange(3, dtype=np.int32)
    light = filled(served.light, (len(x), 10), x.numpy())
    light[:3] = filled(served.heavy, (3, 10), x[:3].numpy(), rows)
    assert np.array_equal(np.load(folder / "logits.npy"), light)


def test_nothing_of_torch_is_imported(exports, x, preprocessing, tmp_path):
    check_without_torch(sys.executable, exports, x, preprocessing, tmp_path)


@pytest.mark.slow
def test_an_environment_of_three_packages_is_enough(exports, x, preprocessing, tmp_path):
    """numpy, Pillow and onnxruntime, and agflow without what it depends on."""
    import onnxruntime
    import PIL

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = {"numpy": np, "pillow": PIL, "onnxruntime": onnxruntime}
    pinned = [f"{name}=={package.__version__}" for name, package in packages.items()]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *pinned], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install three packages here: {done.stderr[-300:]}")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "agflow").symlink_to(pathlib.Path(agflow.__file__).parent)
    listed = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in listed.stderr
    check_without_torch(python, exports, x, preprocessing, tmp_path)
