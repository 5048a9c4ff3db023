"""A served cascade as the Go server uses it: memory lent for each call, routing outside."""

import json
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from agflow.cascade import combine, escalations
from agflow.serving import open_cascade


def opened(folder, **options):
    return open_cascade(json.dumps({"folder": str(folder), "max_batch": 4, **options}))


def filled(method, shape, *given):
    """Call a method with lent memory and return what it wrote, float32 of ``shape``.

    None of the memory may be referred to afterwards: a bytearray that is cannot grow.
    """
    memory = [bytearray(np.ascontiguousarray(array).tobytes()) for array in given]
    memory.append(bytearray(4 * int(np.prod(shape))))
    views = [memoryview(each).toreadonly() for each in memory[:-1]]
    views.append(memoryview(memory[-1]))
    method(*views)
    for view in views:
        view.release()
    written = np.frombuffer(memory[-1], np.float32).reshape(shape).copy()
    for each in memory:
        each.append(0)
    return written


def answers(served, images, cascade):
    """Logits [B, K] of a batch and the rows that escalated, routed by the router of ``cascade``."""
    about = json.loads(served.describe(""))
    light = filled(served.light, (len(images), about["classes"]), images)
    rows = escalations(
        torch.tensor(light),
        cascade.threshold,
        prior=cascade.prior,
        temperature=cascade.temperature,
    ).numpy()
    found = light.copy()
    if len(rows):
        shape = (len(rows), about["classes"])
        heavy = filled(served.heavy, shape, np.asarray(images)[rows], rows.astype(np.int32))
        if cascade.answers == "ensemble":
            both = torch.tensor(light[rows]), torch.tensor(heavy)
            heavy = combine(*both, cascade.light_weight).numpy()
        found[rows] = heavy
    return found, rows


@contextmanager
def server_process(folder, *options):
    """host:port of ``agflow serve`` of a folder, which ends by SIGTERM and answers to the last."""
    command = shutil.which("agflow")
    if command is None:
        pytest.skip("there is no agflow on the PATH")
    if subprocess.run([command, "serve", "--help"], capture_output=True).returncode:
        pytest.skip("this agflow does not serve")
    server = subprocess.Popen(
        [command, "serve", "--cascade", str(folder), "--port", "0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = server.stdout.readline()
    assert line, server.communicate()[1]
    try:
        yield json.loads(line)["url"].removeprefix("http://")
    finally:
        server.terminate()
        _, log = server.communicate(timeout=60)
    assert "panic" not in log and '"level":"ERROR"' not in log, log
