"""The bytes of an image file are prepared and answered as ``agflow predict`` does that file."""

import dataclasses
import io
import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from served import filled, opened, server_process

import agflow
from agflow import commands
from agflow.cascade.priors import priors
from agflow.data import load_dataset
from agflow.errors import AgflowError, InvalidValueError

COMMON = {"seed": None, "features": False, "second_view": False}


def noise(width, height, channels=3, top=256, dtype=np.uint8):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(width * height).integers(0, top, shape, dtype)


def palette():
    image = Image.fromarray(noise(40, 30)).quantize(16)
    image.info["transparency"] = 3
    return image


def rotated():
    """A JPEG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"format": "JPEG", "exif": exif}


ODD = {
    "sixteen.png": (Image.fromarray(noise(40, 30, 1, 65536, np.uint16)), {}),
    "sixteen.tiff": (Image.fromarray(noise(30, 41, 1, 65536, np.uint16)), {}),
    "palette.png": (palette(), {"transparency": 3}),
    "palette.gif": (palette(), {}),
    "alpha.png": (Image.fromarray(noise(33, 21, 4)), {}),
    "grey_alpha.png": (Image.fromarray(noise(33, 21, 4)).convert("LA"), {}),
    "cmyk.jpg": (Image.fromarray(noise(50, 37)).convert("CMYK"), {"quality": 80}),
    "rotated.jpg": (Image.fromarray(noise(64, 32)), rotated()),
    "progressive.jpg": (Image.fromarray(noise(64, 50)), {"progressive": True}),
    "grey.jpg": (Image.fromarray(noise(45, 50, 1)), {}),
    "one_bit.png": (Image.fromarray(noise(45, 50, 1)).convert("1"), {}),
    "lossy.webp": (Image.fromarray(noise(48, 48)), {"quality": 60}),
    "lossless.webp": (Image.fromarray(noise(20, 48, 4)), {"lossless": True}),
    "tiny.png": (Image.fromarray(noise(1, 1)), {}),
    "wide.png": (Image.fromarray(noise(5000, 2)), {}),
    "tall.bmp": (Image.fromarray(noise(3, 900)), {}),
    "plain.ppm": (Image.fromarray(noise(32, 32)), {}),
}


def encoded(name):
    image, how = ODD[name]
    file = io.BytesIO()
    kind = Image.registered_extensions()[f".{name.rpartition('.')[2]}"]
    image.save(file, **{"format": kind, **how})
    return file.getvalue()


def cut(name):
    return encoded(name)[:-200]


BROKEN = {
    "truncated.jpg": lambda: cut("progressive.jpg"),
    "truncated.png": lambda: cut("sixteen.png"),
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"no image at all",
    "floats.tiff": lambda: tiff_of(np.float32),
    "integers.tiff": lambda: tiff_of(np.int32),
    "only_a_head.png": lambda: encoded("tiny.png")[:40],
}


def tiff_of(dtype):
    file = io.BytesIO()
    Image.fromarray(noise(20, 20, 1).astype(dtype)).save(file, "TIFF")
    return file.getvalue()


@pytest.fixture(scope="module")
def cascade(kinds, preprocessing):
    """One that escalates about a half of the odd images."""
    of = kinds["ensemble"]
    images = [preprocessing.prepare(Image.open(io.BytesIO(encoded(name)))) for name in ODD]
    with torch.no_grad():
        certainty = priors(of.light(torch.tensor(np.stack(images))))[1]["max_probability"]
    router = dataclasses.replace(of.router, threshold=float(np.median(certainty)) + 1e-4)
    return agflow.Cascade(of.light, of.heavy, router, shared_blocks=1)


@pytest.fixture(scope="module")
def folder(cascade, preprocessing, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "photos"
    agflow.save(cascade, path, preprocessing=preprocessing)
    return path


@pytest.fixture(scope="module")
def served(folder):
    return opened(folder)


def prepared(served, raw):
    return filled(served.prepare, (3, 32, 32), np.frombuffer(raw, np.uint8))


@pytest.fixture(scope="module")
def predict(folder, tmp_path_factory):
    """What ``agflow predict`` says of the odd images, at a batch size, by their sorted names."""
    path = tmp_path_factory.mktemp("odd")
    (path / "0").mkdir()
    for name in ODD:
        (path / "0" / name).write_bytes(encoded(name))

    def predict(batch_size):
        options = {
            **COMMON,
            "batch_size": batch_size,
            "light": str(folder / "light"),
            "heavy": str(folder / "heavy"),
            "data": f"imagefolder:{path}",
            "output": str(path / "predictions.arrow"),
        }
        commands.predict(json.dumps(options))
        return agflow.Predictions.load(path / "predictions.arrow")

    return predict


def test_odd_images_are_answered_as_agflow_predict_answers_them(served, predict):
    expected = predict(batch_size=64)
    images = np.stack([prepared(served, encoded(name)) for name in sorted(ODD)])
    light = filled(served.light, (len(ODD), 10), images)
    heavy = filled(served.heavy, (len(ODD), 10), images, np.arange(len(ODD), dtype=np.int32))
    assert np.array_equal(light.argmax(1), expected["light_prediction"])
    assert np.array_equal(heavy.argmax(1), expected["heavy_prediction"])
    assert np.array_equal(priors(light)[1]["max_probability"], expected["light_prior"])
    assert len({*map(bytes, images)}) == len(ODD) - 1  # a palette in two formats


def test_the_server_answers_a_file_as_agflow_predict_does(served, folder, predict, cascade):
    """One image at a time, so that both run batches of one: the very same prior."""
    expected, experts = predict(batch_size=1), set()
    with server_process(folder, "--share", "0", "--max-wait-ms", "0") as address:
        for row, name in enumerate(sorted(ODD)):
            answer = classified(address, encoded(name))
            prior = expected["light_prior"][row]
            assert np.float32(answer["prior"]) == prior
            escalated = bool(prior < cascade.threshold)
            assert answer["expert"] == ("ensemble" if escalated else "light")
            logits = cascade(torch.from_numpy(prepared(served, encoded(name))[None]))[0]
            assert answer["class"] == int(logits.argmax())
            assert np.isclose(answer["probability"], float(logits.softmax(0).max()), rtol=1e-5)
            experts.add(answer["expert"])
            if not escalated:
                assert answer["class"] == expected["light_prediction"][row]
        for name, make in BROKEN.items():
            with pytest.raises(urllib.error.HTTPError) as refused:
                classified(address, make())
            assert refused.value.code == 400, name
            said = json.loads(refused.value.read())["error"]
            assert said and "\n" not in said
    assert experts == {"ensemble", "light"}


def classified(address, raw):
    request = urllib.request.Request(
        f"http://{address}/v1/classify", raw, {"Content-Type": "application/octet-stream"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("name", ODD)
def test_an_image_is_prepared_as_the_data_set_prepares_its_file(
    served, preprocessing, name, tmp_path
):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / name).write_bytes(encoded(name))
    images = load_dataset(f"imagefolder:{tmp_path}", preprocessing=preprocessing)
    assert np.array_equal(prepared(served, encoded(name)), images[0][0].numpy())


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_data_set_refuses_is_refused_for_the_same_reason(
    served, preprocessing, name, tmp_path
):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / name).write_bytes(BROKEN[name]())
    images = load_dataset(f"imagefolder:{tmp_path}", preprocessing=preprocessing)
    with pytest.raises(AgflowError) as refused:
        images[0]
    text = str(refused.value)
    reason = text[text.index("(") + 1 : text.rindex(")")]
    with pytest.raises(InvalidValueError, match="^the image cannot be decoded") as found:
        prepared(served, BROKEN[name]())
    assert f"({reason})" in str(found.value) and len(reason) > 5


def test_many_threads_prepare_at_once(served):
    expected = {name: prepared(served, encoded(name)) for name in ODD}
    wrong = []

    def work(name, raw):
        for _ in range(20):
            if not np.array_equal(prepared(served, raw), expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name, encoded(name))) for name in ODD]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_image_of_its_own_batch_has_the_answer_of_the_cascade(served, cascade):
    for name in ("rotated.jpg", "wide.png"):
        image = prepared(served, encoded(name))[None]
        light = filled(served.light, (1, 10), image)
        cascade(torch.from_numpy(image))
        escalated = cascade.last_call.escalated
        assert (priors(light)[1]["max_probability"][0] < cascade.threshold) == bool(escalated)
