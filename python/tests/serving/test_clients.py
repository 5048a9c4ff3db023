"""Clients that people have, against ``agflow serve`` as a process: tritonclient, curl, urllib."""

import io
import json
import shutil
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from served import filled, opened, server_process

import agflow
from agflow.cascade.priors import priors

SIZE, CLASSES = (3, 32, 32), 10


@pytest.fixture(scope="module")
def cascade(make_cascade):
    return make_cascade()


@pytest.fixture(scope="module")
def folder(cascade, preprocessing, tmp_path_factory):
    path = tmp_path_factory.mktemp("clients") / "photos"
    agflow.save(cascade, path, preprocessing=preprocessing)
    return path


@pytest.fixture(scope="module")
def address(folder):
    """host:port of a server of the folder, which ends by SIGTERM and answers to the last."""
    with server_process(folder) as address:
        yield address


def asked(address, path, body=None):
    with urllib.request.urlopen(f"http://{address}{path}", body, timeout=60) as answer:
        return answer.read()


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((96, 80)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def expected(cascade, x):
    """Logits [B, K] and whether the image escalated, from the cascade itself."""
    with torch.no_grad():
        logits = cascade(x).numpy()
        escalates = priors(cascade.light(x))[1][cascade.prior] < cascade.threshold
    return logits, escalates


@pytest.fixture(scope="module")
def triton(address):
    library = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    with library.InferenceServerClient(address) as client:
        yield library, client


def test_tritonclient_knows_the_server(triton):
    library, client = triton
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("photos")
    (entry,) = client.get_model_repository_index()
    assert entry["name"] == "photos" and client.is_model_ready("photos", entry["version"])
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    about = client.get_model_metadata("photos")
    assert about["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, *SIZE]}]
    assert client.get_model_config("photos")["max_batch_size"] >= 1
    with pytest.raises(library.InferenceServerException, match="is not served here"):
        client.get_model_metadata("pictures")


def test_tritonclient_reads_the_statistics(triton, x):
    library, client = triton

    def statistics(name="photos"):
        (found,) = client.get_inference_statistics(name)["model_stats"]
        return found

    assert "statistics" in client.get_server_metadata()["extensions"]
    before = statistics()
    images = library.InferInput("images", [4, *SIZE], "FP32")
    images.set_data_from_numpy(x[:4].numpy())
    for _ in range(3):
        client.infer("photos", [images])
    with pytest.raises(library.InferenceServerException):
        client.infer("photos", [images], priority=1)
    after = statistics("")
    assert after["name"] == "photos" and client.is_model_ready("photos", after["version"])
    assert after["inference_count"] - before["inference_count"] == 12
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["last_inference"] > before["last_inference"]
    was, now = before["inference_stats"], after["inference_stats"]
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert now[part]["count"] - was[part]["count"] == 3
        assert now[part]["ns"] > was[part]["ns"]
    assert now["fail"]["count"] - was["fail"]["count"] == 1
    assert 4 in [batch["batch_size"] for batch in after["batch_stats"]]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_tritonclient_is_answered(triton, x, expected, datatype, is_binary, compression):
    library, client = triton
    images = library.InferInput("images", list(x.shape), datatype)
    given = x.numpy().astype({"FP32": np.float32, "FP64": np.float64}[datatype])
    images.set_data_from_numpy(given, binary_data=is_binary)
    names = ["logits", "class", "probability", "expert", "prior", "cost", "id"]
    answer = client.infer(
        "photos",
        [images],
        outputs=[library.InferRequestedOutput(name, binary_data=is_binary) for name in names],
        request_id="mine",
        timeout=50_000_000,
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    found = {name: answer.as_numpy(name) for name in names}
    logits, escalates = expected
    assert answer.get_response()["id"] == "mine"
    assert np.allclose(found["logits"], logits, atol=1e-4)
    assert np.array_equal(found["class"], found["logits"].argmax(1))
    text = np.char.decode(found["expert"].astype("S"))
    assert np.array_equal(text == "heavy", escalates) and {*text} == {"heavy", "light"}
    shares = torch.tensor(found["logits"]).softmax(1).amax(1).numpy()
    assert np.allclose(found["probability"], shares, atol=1e-5)
    assert len({*found["id"]}) == len(x) and (found["cost"] > 0).all()


def test_tritonclient_is_refused_in_words(triton, x):
    library, client = triton
    images = library.InferInput("images", [1, 3, 8, 8], "FP32")
    images.set_data_from_numpy(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(library.InferenceServerException, match=r"expected \[n, 3, 32, 32\]"):
        client.infer("photos", [images])
    images = library.InferInput("images", [1, *SIZE], "FP32")
    images.set_data_from_numpy(np.full((1, *SIZE), np.nan, np.float32))
    with pytest.raises(library.InferenceServerException, match="not a finite float32"):
        client.infer("photos", [images])
    images.set_data_from_numpy(x[:1].numpy())
    with pytest.raises(library.InferenceServerException, match="priority"):
        client.infer("photos", [images], priority=1)


def test_curl_gets_the_answer_of_the_file(address, folder, tmp_path):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl on the PATH")
    served = opened(folder)
    for seed in range(3):
        file = tmp_path / f"{seed}.jpg"
        file.write_bytes(jpeg(seed))
        image = filled(served.prepare, SIZE, np.frombuffer(file.read_bytes(), np.uint8))
        light = filled(served.light, (1, CLASSES), image[None])
        for arguments in (["--data-binary", f"@{file}"], ["--form", f"image=@{file}"]):
            done = subprocess.run(
                [curl, "--silent", "--fail-with-body", *arguments, f"{address}/v1/classify?top=2"],
                capture_output=True,
                check=True,
                timeout=60,
            )
            found = json.loads(done.stdout)
            assert found["model"] == "photos" and found["expert"] in ("light", "heavy")
            assert found["prior"] == pytest.approx(priors(light)[1]["max_probability"][0], abs=1e-5)
            if found["expert"] == "light":
                assert found["class"] == light.argmax()
            assert found["top"][0]["class"] == found["class"]
    served.close("")


def test_what_is_no_image_is_refused_in_one_sentence(address):
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(address, "/v1/classify", b"no image at all")
    with refused.value as answer:
        sentence = json.load(answer)["error"]
    assert refused.value.code == 400 and "image" in sentence and "Traceback" not in sentence


def test_metrics_and_status_count_what_was_answered(address):
    def images():
        lines = asked(address, "/metrics").decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("agflow_images_"))

    before = images()
    asked(address, "/v1/classify", jpeg(7))
    assert images() == before + 1
    status = json.loads(asked(address, "/v1/status"))
    assert status["total"]["images"] == before + 1 and status["live"]["images"] >= 1
    assert b"<!doctype html>" in asked(address, "/")
