"""Images and models by name: the results, and one clear error for everything wrong."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader

from agflow.data import datasets as data
from agflow.data.datasets import load_dataset
from agflow.data.options import DataOptions
from agflow.data.preprocessing import Preprocessing
from agflow.errors import CorruptFileError, EmptyError, FileError, InvalidValueError
from agflow.models.expert import save_expert
from agflow.models.load import load_model

SMALL = Preprocessing((16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
GREY = Preprocessing((28, 28), (0.286,), (0.353,))


def jpeg(shade, size=(40, 24)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def parquet(tmp_path):
    """Nine images, image i of shade 10 * i; three classes, with class and ImageNet index."""
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 2]
    table = pa.table(
        {
            "image": [{"bytes": jpeg(10 * i), "path": f"{i}.png"} for i in range(9)],
            "label": labels,
            "imagenet_label": [500 + label for label in labels],
            "wnid": ["n0"] * 9,
        }
    )
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=4)
    return tmp_path / "images.parquet"


def shades(dataset):
    return [round(float((image.mean() * 0.25 + 0.5) * 255 / 10)) for image, _ in dataset]


def test_parquet_rows_and_labels(parquet):
    dataset = load_dataset(f"parquet:{parquet}", preprocessing=SMALL)
    assert shades(dataset) == list(range(9)) and dataset.labels.tolist() == [
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        2,
    ]
    image, label = dataset[3]
    assert image.shape == (3, 16, 16) and image.dtype == torch.float32 and type(label) is int
    assert dataset.labels.dtype == torch.int64


def test_imagenet_labels_for_a_model_of_imagenet(parquet):
    load = lambda **options: (
        load_dataset(f"parquet:{parquet}", preprocessing=SMALL, **options).labels[-1].item()
    )
    assert (
        load(classes=1000),
        load(classes=10),
        load(options=DataOptions(label="imagenet_label")),
        load(classes=1000, options=DataOptions(label="label")),
    ) == (502, 2, 502, 2)


def test_limit_and_offset_cut_the_same_order(parquet):
    for seed in (None, 4):
        load = lambda seed=seed, **options: shades(
            load_dataset(f"parquet:{parquet}", preprocessing=SMALL, seed=seed, **options)
        )
        assert load(limit=4) + load(offset=4) == load()
        assert sorted(load()) == list(range(9))


def test_a_seed_takes_the_classes_in_turn(parquet):
    load = lambda seed: load_dataset(f"parquet:{parquet}", preprocessing=SMALL, seed=seed)
    assert load(0).labels.tolist() == [0, 1, 2, 0, 1, 0, 1, 0, 0]
    assert (
        shades(load(0)) == shades(load(0))
        and len({tuple(shades(load(seed))) for seed in range(5)}) > 1
    )


def test_preprocessing_equals_timm(folder, deit):
    """Decoding to uint8 and normalising later equals timm's own evaluation transform."""
    path = folder / "imagenette160_val.parquet"
    dataset = load_dataset(f"parquet:{path}", preprocessing=deit[1], classes=1000, limit=3)
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(deit[0]), is_training=False
    )
    rows = pq.read_table(path, columns=["image"]).slice(0, 3).to_pylist()
    for (image, _), row in zip(dataset, rows, strict=False):
        expected = transform(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)


def test_the_example():
    train, test = (
        load_dataset(f"example:{part}", preprocessing=GREY, classes=10)
        for part in ("train", "test")
    )
    assert (len(train), len(test)) == (4000, 1000)
    x = np.load(data.EXAMPLE / "fashion_mnist_mini.npz")["x_test"]
    for index in (0, 17):
        assert torch.equal(
            test[index][0][0], (torch.from_numpy(x[index]).float() / 255 - 0.286) / 0.353
        )
    assert (
        torch.bincount(
            load_dataset("example:train", preprocessing=GREY, seed=1, limit=40).labels
        ).tolist()
        == [4] * 10
    )


def test_npz_and_imagefolder(tmp_path):
    x = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full((1, 20, 20, 3), 10, np.uint8)
    np.savez(tmp_path / "plain.npz", x=x, y=np.array([1, 0, 1, 0]))
    np.savez(
        tmp_path / "parts.npz",
        x_train=x,
        y_train=np.zeros(4, np.uint8),
        x_test=x[:1],
        y_test=np.array([3]),
    )
    load = lambda spec: load_dataset(spec, preprocessing=SMALL)
    assert shades(load(f"npz:{tmp_path / 'plain.npz'}")) == [0, 1, 2, 3]
    assert load(f"npz:{tmp_path / 'plain.npz'}").labels.tolist() == [1, 0, 1, 0]
    assert len(load(f"npz:{tmp_path / 'parts.npz'}")) == 4 and load(
        f"npz:{tmp_path / 'parts.npz'}#test"
    ).labels.tolist() == [3]
    for name, shade in (("cats/a.png", 10), ("cats/b.png", 20), ("dogs/a.png", 30)):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(jpeg(shade))
    assert shades(load(f"imagefolder:{tmp_path / 'photos'}")) == [1, 2, 3]
    assert load(f"imagefolder:{tmp_path / 'photos'}").labels.tolist() == [0, 0, 1]


def test_each_image_is_decoded_once(parquet, monkeypatch):
    dataset = load_dataset(f"parquet:{parquet}", preprocessing=SMALL)
    first = [image for image, _ in dataset]
    monkeypatch.setattr(dataset, "_images", None)
    assert all(torch.equal(a, b) for a, (b, _) in zip(first, dataset, strict=True))


def test_datasets_travel_to_worker_processes(parquet, tmp_path):
    np.savez(tmp_path / "plain.npz", x=np.zeros((4, 20, 20), np.uint8), y=np.arange(4))
    for spec in (f"parquet:{parquet}", f"npz:{tmp_path / 'plain.npz'}"):
        dataset = load_dataset(spec, preprocessing=SMALL)
        assert torch.equal(pickle.loads(pickle.dumps(dataset))[1][0], dataset[1][0])
        (a, _), (b, _) = (
            next(iter(DataLoader(dataset, batch_size=4, num_workers=workers))) for workers in (0, 1)
        )
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "spec, options, kind, message",
    [
        ("csv:images.csv", {}, InvalidValueError, "expected one of: parquet:FILE"),
        ("parquet:", {}, InvalidValueError, "expected one of"),
        ("{here}/images.parquet", {}, InvalidValueError, "expected one of"),
        ("parquet:{here}/none.parquet", {}, FileError, "none.parquet is missing"),
        ("npz:{here}/none.npz", {}, FileError, "none.npz is missing"),
        (
            "imagefolder:{here}/none",
            {},
            FileError,
            "is not a folder with one folder of images per class",
        ),
        (
            "imagefolder:{here}",
            {},
            FileError,
            "is not a folder with one folder of images per class",
        ),
        ("parquet:{here}/text", {}, CorruptFileError, "text is not a readable parquet file"),
        ("npz:{here}/text", {}, CorruptFileError, "text is not a readable npz file"),
        ("npz:{here}/cut.npz", {}, CorruptFileError, "cut.npz is not a readable npz file"),
        ("npz:{here}/pickled.npz", {}, CorruptFileError, "pickled.npz is not a readable npz file"),
        ("npz:{here}/floats.npz", {}, InvalidValueError, "array 'x' of .* is float64"),
        ("npz:{here}/floats.npz#test", {}, InvalidValueError, "array 'x_test' is not in"),
        (
            "parquet:{here}/images.parquet",
            {"options": DataOptions(label="class")},
            InvalidValueError,
            "column 'class' is not in .*; it has image, label, imagenet_label, wnid",
        ),
        (
            "parquet:{here}/images.parquet",
            {"options": DataOptions(label="image")},
            InvalidValueError,
            "column 'image' of .* is struct",
        ),
        (
            "parquet:{here}/images.parquet",
            {"classes": 2},
            InvalidValueError,
            "labels of .* run from 0 to 2, the model has 2 classes",
        ),
        ("parquet:{here}/images.parquet", {"limit": -1}, InvalidValueError, "limit is -1"),
        (
            "parquet:{here}/images.parquet",
            {"offset": 9},
            EmptyError,
            "has 9 images and none is left",
        ),
        ("parquet:{here}/flat.parquet", {}, InvalidValueError, "column 'image' of .* is int64"),
        ("example:validation", {}, InvalidValueError, "expected example:train or example:test"),
    ],
)
def test_refusals(parquet, tmp_path, spec, options, kind, message):
    (tmp_path / "text").write_text("not an image in sight")
    np.savez(tmp_path / "floats.npz", x=np.zeros((2, 4, 4)), y=np.zeros(2, int))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}, {}], object), y=np.zeros(2, int))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "floats.npz").read_bytes()[:200])
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), tmp_path / "flat.parquet")
    with pytest.raises(kind, match=message):
        load_dataset(spec.format(here=tmp_path), preprocessing=SMALL, **options)


def test_timm_model_with_weights(tmp_path):
    published = timm.create_model("vit_tiny_patch16_224")
    safetensors.torch.save_file(published.state_dict(), tmp_path / "weights.safetensors")
    model, preprocessing, name = load_model(
        "timm:vit_tiny_patch16_224", tmp_path / "weights.safetensors"
    )
    assert name == "vit_tiny_patch16_224" and not model.training
    assert all(
        torch.equal(tensor, published.state_dict()[key])
        for key, tensor in model.state_dict().items()
    )
    assert preprocessing == Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9)


def make_small():
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=48,
        depth=2,
        num_heads=4,
        num_classes=3,
    )


def test_expert_folder_and_function(tmp_path, monkeypatch):
    model = make_small().eval()
    save_expert(model, tmp_path / "light", preprocessing=SMALL)
    loaded, preprocessing, name = load_model(str(tmp_path / "light"))
    assert (preprocessing, name) == (SMALL, "light")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(x), model(x))
    (tmp_path / "zoo.py").write_text(
        "import timm\nWIDTH = 3\ndef small():\n    return timm.create_model("
        "'vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=4, "
        "num_classes=3)\n"
        "def number():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    made, preprocessing, name = load_model("zoo:small", tmp_path / "w.safetensors")
    assert (
        torch.equal(made(x), model(x))
        and preprocessing.input_size == (32, 32)
        and name == "vit_tiny_patch16_224"
    )
    for spec, message in (
        ("zoo:large", "module zoo has no large"),
        ("nozoo:small", "No module named"),
        ("zoo:number", "gave a int, expected"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            load_model(spec)


def test_model_refusals(tmp_path, monkeypatch):
    weights = make_small().state_dict()
    save = lambda name, tensors: safetensors.torch.save_file(tensors, tmp_path / name)
    renamed = {
        ("body." + key if key == "cls_token" else key): value for key, value in weights.items()
    }
    save("renamed.safetensors", renamed)
    save("shaped.safetensors", {**weights, "head.bias": torch.zeros(5)})
    torch.save(weights, tmp_path / "pickled.pth")
    save_expert(make_small(), tmp_path / "light", preprocessing=SMALL)
    vit = "timm:vit_tiny_patch16_224"
    small = make_small()
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False: small)
    for spec, file, kind, message in [
        ("timm:vit_tiny_patch16_225", None, InvalidValueError, "did you mean vit_tiny_patch16_224"),
        ("vit", None, InvalidValueError, "is no folder, expected timm:NAME"),
        ("./nowhere", None, InvalidValueError, "is no folder"),
        (
            str(tmp_path / "light"),
            "renamed.safetensors",
            InvalidValueError,
            "brings its own weights",
        ),
        (vit, "none.safetensors", FileError, "none.safetensors is missing"),
        (
            vit,
            "renamed.safetensors",
            CorruptFileError,
            "body.cls_token is not in the model; cls_token is missing",
        ),
        (vit, "shaped.safetensors", CorruptFileError, r"head.bias has shape \[5\], expected \[3\]"),
        (vit, "pickled.pth", CorruptFileError, "are not a safetensors file"),
    ]:
        with pytest.raises(kind, match=message):
            load_model(spec, None if file is None else tmp_path / file)


def test_published_weights_that_cannot_be_fetched(monkeypatch):
    def offline(name, pretrained=False):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        FileError, match=r"cannot be fetched \(no network\): name a safetensors file with weights"
    ):
        load_model("timm:vit_tiny_patch16_224")
