"""A cascade folder in PyTorch: the bits of agflow.Cascade, behind memory that the caller owns."""

import copy
import dataclasses
import json
import shutil
import threading

import numpy as np
import pytest
import torch
from served import answers, filled, opened

import agflow
from agflow.data import load_dataset
from agflow.errors import (
    ClosedError,
    CorruptFileError,
    DeviceError,
    FileError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)

KINDS = [
    *("plain", "by margin", "shared prefix", "ensemble", "fewer pixels"),
    *("in pieces", "prefix in pieces"),
]


@pytest.fixture(scope="module")
def folder(kinds, preprocessing, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "photos"
    agflow.save(kinds["shared prefix"], path, preprocessing=preprocessing)
    return path


@pytest.fixture(scope="module")
def served(folder):
    return opened(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_bits_of_the_cascade(kinds, kind, x, preprocessing, tmp_path):
    cascade = kinds[kind]
    agflow.save(cascade, tmp_path / "cascade", preprocessing=preprocessing)
    served = opened(tmp_path / "cascade")
    for images in (x, x[:1], x[3:10], x):
        expected = cascade(images).numpy()
        found, rows = answers(served, images.numpy(), cascade)
        assert np.array_equal(found, expected)
        assert len(rows) == cascade.last_call.escalated
    assert 0 < len(rows) < len(x)


def test_the_example_is_served_as_it_answers(tmp_path):
    heavy, preprocessing, _ = agflow.load_model("example")
    light = agflow.models.at_image_size(heavy, 20)
    images = load_dataset("example:test", preprocessing=preprocessing, limit=64)
    batch = torch.stack([image for image, _ in images])
    predictions = agflow.predict(light, heavy, [(batch, images.labels)])
    router = agflow.calibrate_router(predictions, escalation=0.5)
    cascade = agflow.Cascade(light, heavy, router)
    agflow.save(cascade, tmp_path / "fashion", preprocessing=preprocessing)
    served = opened(tmp_path / "fashion")
    found, rows = answers(served, batch.numpy(), cascade)
    assert np.array_equal(found, cascade(batch).numpy()) and len(rows)
    assert np.array_equal(
        filled(served.light, (64, 10), batch.numpy()).argmax(1), predictions["light_prediction"]
    )


def test_what_is_served_is_described(served, kinds):
    cascade, about = kinds["shared prefix"], json.loads(served.describe(""))
    assert about.pop("router") == json.loads(json.dumps(dataclasses.asdict(cascade.router)))
    assert about.pop("revision").isalnum()
    assert about == {
        "name": "photos",
        "runtime": "torch",
        "runtime_version": torch.__version__,
        "channels": 3,
        "height": 32,
        "width": 32,
        "classes": 10,
        "class_names": None,
        "max_batch": None,
        "light_cost": cascade.costs.light,
        "heavy_cost": cascade.costs.heavy,
        "shared_cost": cascade.costs.shared,
        "cost_unit": "MACs",
        "device": "cpu",
        "threads": torch.get_num_threads(),
    }


def test_the_revision_changes_with_any_file_and_names_are_kept(
    kinds, make_cascade, experts, preprocessing, tmp_path
):
    revisions = set()
    named = [copy.deepcopy(expert) for expert in experts]
    for expert in named:
        vars(expert)["class_names"] = list("abcdefghij")
    of_names = agflow.Cascade(*named, kinds["plain"].router, max_batch=7)
    for cascade in (kinds["plain"], kinds["by margin"], kinds["fewer pixels"], of_names):
        agflow.save(cascade, tmp_path / "c", preprocessing=preprocessing)
        about = json.loads(opened(tmp_path / "c").describe(""))
        revisions.add(about["revision"])
    assert len(revisions) == 4
    assert about["class_names"] == list("abcdefghij") and about["max_batch"] == 7
    again = json.loads(opened(tmp_path / "c").describe(""))
    assert again == about


def test_threads_hold_on_the_thread_that_computes(folder, x):
    before, seen = torch.get_num_threads(), []
    try:
        served = opened(folder, threads=3)
        assert json.loads(served.describe(""))["threads"] == 3

        def work():
            filled(served.light, (2, 10), x[:2].numpy())
            seen.append(torch.get_num_threads())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [3]
    finally:
        torch.set_num_threads(before)


def test_wrong_memory_is_one_sentence(served, x):
    images, logits = x[:3].numpy(), (3, 10)
    filled(served.light, logits, images)
    row = np.zeros(1, np.int32)
    for match, method, shape, given in (
        ("images have 12287 bytes, expected a multiple of 12288", "light", logits, [bytes(12287)]),
        ("images have 0 bytes", "light", logits, [b""]),
        ("memory of the logits has 116 bytes, expected 120", "light", (29,), [images]),
        ("memory of the logits has 44 bytes, expected 40", "heavy", (11,), [images[:1], row]),
        ("the rows have 4 bytes, expected 8", "heavy", (2, 10), [images[:2], row]),
    ):
        with pytest.raises(ShapeError, match=match):
            filled(getattr(served, method), shape, *map(as_bytes, given))
    for wrong in (3, -1):
        with pytest.raises(InvalidValueError, match=f"rows run from {wrong} to {wrong}, .* 0 to 2"):
            filled(served.heavy, (1, 10), images[:1], row + np.int32(wrong))


def as_bytes(given):
    return np.frombuffer(given, np.uint8) if isinstance(given, bytes) else given


def test_logits_that_are_not_finite_are_refused_with_their_image(served, x):
    images = x[:3].numpy().copy()
    images[1, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="light expert's logits of image 1 of 3 are NaN or"):
        filled(served.light, (3, 10), images)
    with pytest.raises(InvalidValueError, match="rows run from 0"):  # there is no light batch now
        filled(served.heavy, (1, 10), images[:1], np.zeros(1, np.int32))
    filled(served.light, (3, 10), x[:3].numpy())
    filled(served.heavy, (1, 10), images[:1], np.zeros(1, np.int32))  # it goes on from the tokens


def test_a_closed_cascade_says_so(folder, x):
    served = opened(folder)
    served.close("")
    served.close()
    for call in (
        lambda: served.describe(""),
        lambda: filled(served.light, (1, 10), x[:1].numpy()),
        lambda: filled(served.prepare, (3, 32, 32), np.zeros(9, np.uint8)),
    ):
        with pytest.raises(ClosedError, match="the cascade photos is closed: open it again"):
            call()


def test_what_cannot_be_opened_is_one_sentence(folder, experts, tmp_path):
    for options, error, match in (
        ({"folder": tmp_path / "none"}, FileError, "holds neither cascade.json nor export.json"),
        ({"folder": folder / "light"}, FileError, "holds neither cascade.json nor export.json"),
        ({"folder": ""}, InvalidValueError, "option folder is missing"),
        ({"threads": 0}, InvalidValueError, "option threads is 0, expected a whole number from 1"),
        ({"threads": True}, InvalidValueError, "option threads is True"),
        ({"device": 3}, InvalidValueError, "option device is 3, expected a text"),
        ({"speed": 1}, InvalidValueError, "option 'speed' is unknown, expected folder, device"),
        ({"device": "cuda:77"}, DeviceError, "cannot compute on device 'cuda:77'"),
        ({"model": "json:dumps"}, InvalidValueError, "."),
    ):
        with pytest.raises(error, match=match):
            opened(**{"folder": folder, **options})
    with pytest.raises(CorruptFileError, match="the options of a served cascade"):
        agflow.serving.open_cascade("[1]")
    shutil.copytree(folder, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "heavy" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(CorruptFileError, match="model.safetensors is damaged"):
        opened(tmp_path / "damaged")


def test_a_cascade_without_preprocessing_takes_tensors_alone(kinds, x, tmp_path):
    agflow.save(kinds["plain"], tmp_path / "bare")
    served = opened(tmp_path / "bare")
    assert np.array_equal(answers(served, x.numpy(), kinds["plain"])[0], kinds["plain"](x).numpy())
    with pytest.raises(InvalidValueError, match="the cascade bare holds no preprocessing, by whi"):
        filled(served.prepare, (3, 32, 32), np.zeros(9, np.uint8))
