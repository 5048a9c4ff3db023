"""What the server costs over the bare runtime: DeiT-Tiny, ONNX Runtime, batches of 32 images.

``pytest -s -m bench python/tests/bench/test_serving.py`` prints the images a second of both, round
by round on the same machine in the same minutes.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from served import filled, opened

import agflow
from agflow.exporting import export_cascade

pytestmark = pytest.mark.bench

BATCH, ROUNDS, BATCHES = 32, 5, 8
ESCALATED = 8  # of the 32


@pytest.fixture(scope="module")
def exported(deit, tmp_path_factory):
    """An exported cascade of DeiT-Tiny and itself at half the side, and a batch of images."""
    heavy, preprocessing = deit
    light = agflow.models.at_image_size(heavy, 112)
    images = torch.rand(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        confidence = light(images).softmax(1).amax(1)
    labels = torch.arange(BATCH) % 1000
    predictions = agflow.predict(light, heavy, [(images, heavy(images).argmax(1).detach())])
    assert len(predictions) == len(labels)
    router = agflow.calibrate_router(predictions, escalation=ESCALATED / BATCH)
    threshold = float(confidence.sort().values[ESCALATED - 1 : ESCALATED + 1].double().mean())
    router = router.__class__(**{**vars(router), "threshold": threshold})
    folder = tmp_path_factory.mktemp("served") / "cascade"
    export_cascade(agflow.Cascade(light, heavy, router), folder, preprocessing=preprocessing)
    return folder, images.numpy()


@contextlib.contextmanager
def serving(folder, *arguments):
    """``agflow serve`` as a process; the address that it prints."""
    command = [str(pathlib.Path(sys.executable).with_name("agflow")), "serve", "--cascade"]
    process = subprocess.Popen(
        [*command, str(folder), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "AGFLOW_PYTHON": sys.executable},
    )
    try:
        found = re.search(r"http://(\S+)", process.stdout.readline())
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)


def request_of(images):
    text = json.dumps(
        {
            "inputs": [
                {
                    "name": "images",
                    "datatype": "FP32",
                    "shape": images.shape,
                    "parameters": {"binary_data_size": images.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "logits"}],
        }
    ).encode()
    return text + images.tobytes(), {"Inference-Header-Content-Length": str(len(text))}


def ask(address, body, headers):
    connection = http.client.HTTPConnection(address)
    connection.request("POST", "/v2/models/cascade/infer", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    length = int(answer.headers["Inference-Header-Content-Length"])
    return np.frombuffer(content[length:], np.float32).reshape(BATCH, -1)


@pytest.mark.parametrize("threads", [1, 2])
def test_server_over_the_bare_runtime(exported, threads):
    folder, images = exported
    bare = opened(folder, max_batch=BATCH, threads=threads)
    rows = np.arange(ESCALATED, dtype=np.int32)

    def passes():
        light = filled(bare.light, (BATCH, 1000), images)
        filled(bare.heavy, (ESCALATED, 1000), images[:ESCALATED], rows)
        return light

    alone = ("--max-batch", str(BATCH), "--share", "0")  # an audit is a cost of its own
    with serving(folder, "--threads", str(threads), *alone) as address:
        request = request_of(images)
        answers = ask(address, *request)
        agree = answers.argmax(1) == passes().argmax(1)
        assert agree.mean() > 0.5  # the light expert's, but for what escalated
        ratios = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            for _ in range(BATCHES):
                passes()
            middle = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(2) as clients:
                for found in clients.map(lambda _: ask(address, *request), range(BATCHES)):
                    np.testing.assert_allclose(found, answers, rtol=1e-4, atol=1e-4)
            end = time.perf_counter()
            ratios.append((end - middle) / (middle - begin))
            rates = [BATCH * BATCHES / t for t in (middle - begin, end - middle)]
            print(f"{threads} threads: bare {rates[0]:.1f}, server {rates[1]:.1f} images/s")
    print(
        f"server over bare: {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
        f"{max(ratios):.3f})"
    )
    assert statistics.median(ratios) < 1.15
