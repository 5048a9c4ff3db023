"""The server: each image gets its own answer despite threads, errors, exits, signals and forks."""

import functools
import gc
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import agflow
from agflow.cascade.priors import priors
from agflow.errors import (
    BusyError,
    ClosedError,
    DeadlineError,
    DtypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from agflow.evaluation import durations
from agflow.evaluation.durations import Durations

SOON = 60  # seconds: what hangs fails


class Gate(nn.Module):
    """In place of a cascade: answers the mean of each image once it is opened."""

    def __init__(self, open=True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.error = RuntimeError("unlucky")
        self.batches, self.entered, self.opened = [], threading.Event(), threading.Event()
        if open:
            self.opened.set()

    def forward(self, x):
        self.entered.set()
        assert self.opened.wait(SOON)
        self.batches.append(len(x))
        if (x == 13).any():
            raise self.error
        return x.mean((2, 3))


def image(value, size=2):
    return torch.full((1, size, size), float(value))


def submit_behind_the_gate(server, gate, values):
    """One image goes to work and waits at the gate; the others wait in the queue."""
    futures = [server.submit(image(-1))]
    assert gate.entered.wait(SOON)
    return futures + [server.submit(image(value)) for value in values]


@pytest.fixture
def gate():
    gate = Gate(open=False)
    yield gate
    gate.opened.set()  # whatever a test left at work ends


@pytest.fixture(scope="module")
def cascade():
    torch.manual_seed(0)
    light, heavy = (
        VisionTransformer(
            img_size=16, patch_size=8, num_classes=5, embed_dim=32, depth=depth, num_heads=2
        ).eval()
        for depth in (1, 3)
    )
    return agflow.Cascade(light, heavy, 0.5)


def test_many_threads_get_the_answer_of_their_own_image(cascade):
    images = torch.randn(240, 3, 16, 16)
    with torch.no_grad():
        certainty = np.sort(priors(cascade.light(images))[1]["max_probability"])
    cascade.threshold = float(certainty[79:81].mean())  # between two images, not upon one
    expected = cascade(images)
    assert cascade.last_call.escalated == 80
    cascade.reset_ledger()
    with (
        agflow.Server(cascade, max_batch=16, max_wait_ms=2) as server,
        ThreadPoolExecutor(24) as pool,
    ):
        found = torch.stack(list(pool.map(lambda one: server.submit(one).result(SOON), images)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (cascade.ledger.samples, cascade.ledger.escalated) == (240, 80)
    assert cascade.latency.count < 240  # some shared a batch
    assert server.latency.count == 240 and 0 < server.latency.p50 <= server.latency.p99


def test_what_waits_makes_up_the_next_batches(gate):
    with agflow.Server(gate, max_batch=4, max_wait_ms=0) as server:
        futures = submit_behind_the_gate(server, gate, range(10))
        gate.opened.set()
        assert [float(future.result(SOON)) for future in futures] == [-1, *range(10)]
    assert gate.batches == [1, 4, 4, 2]


def test_a_batch_waits_for_others_but_not_for_long():
    gate = Gate()
    with agflow.Server(gate, max_batch=3, max_wait_ms=300) as server:
        start = time.perf_counter()
        wait([server.submit(image(0)) for _ in range(3)], SOON)
        assert time.perf_counter() - start < 0.25  # full
        start = time.perf_counter()
        wait([server.submit(image(0)) for _ in range(2)], SOON)
        assert 0.29 < time.perf_counter() - start < 5
    assert gate.batches == [3, 2]


@pytest.mark.parametrize("error", [RuntimeError("unlucky"), SystemExit("unlucky")])
def test_an_image_that_fails_fails_alone_and_the_server_goes_on(gate, error):
    gate.error = error
    with agflow.Server(gate, max_batch=4) as server:
        futures = submit_behind_the_gate(server, gate, (1, 13, 2, 3, 4, 5))
        gate.opened.set()
        with pytest.raises(type(error), match="unlucky") as found:
            futures[2].result(SOON)
        others = [-1, 1, 2, 3, 4, 5]
        assert [float(f.result(SOON)) for f in futures[:2] + futures[3:]] == others
    assert server.latency.count == 6
    frame = found.value.__traceback__.tb_next
    while frame.tb_next:
        frame = frame.tb_next
    assert "x" not in frame.tb_frame.f_locals  # whoever keeps the error keeps no images


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_that_overflows_fails_alone(cascade, dtype):
    """Of finite pixels, so that it is not refused at once."""
    images = torch.randn(8, 3, 16, 16).to(dtype)
    images[2] *= 1e38
    with agflow.Server(cascade, max_batch=8, max_wait_ms=500) as server:
        futures = [server.submit(one) for one in images]
        expected = cascade(images[:1])[0]
        with pytest.raises(NonFiniteError, match="not finite"):
            futures[2].result(SOON)
        torch.testing.assert_close(futures[0].result(SOON), expected, rtol=1e-4, atol=1e-5)
        assert all(futures[i].result(SOON).isfinite().all() for i in (1, 3, 4, 5, 6, 7))


def raising(error):
    def callback(_):
        raise error

    return callback


@pytest.mark.parametrize(
    "spoil",
    [
        lambda future: future.add_done_callback(raising(SystemExit(3))),
        lambda future: future.add_done_callback(raising(KeyboardInterrupt())),
        lambda future: future.add_done_callback(raising(RuntimeError("callback"))),
        lambda future: future.set_result(None),
        lambda future: future.set_exception(RuntimeError("mine")),
        lambda future: future.cancel(),
        functools.partial(Future.set_running_or_notify_cancel),
    ],
    ids=["exit", "interrupt", "error", "result", "exception", "cancel", "running"],
)
def test_what_a_caller_does_to_its_future_stops_nobody_else(gate, spoil):
    with agflow.Server(gate, max_batch=4) as server:
        futures = submit_behind_the_gate(server, gate, range(6))
        spoil(futures[2])  # waits
        if not isinstance(spoil, functools.partial):
            spoil(futures[0])  # is at work
        gate.opened.set()
        others = futures[1:2] + futures[3:]
        assert [float(future.result(SOON)) for future in others] == [0, 2, 3, 4, 5]
        assert float(server.submit(image(9)).result(SOON)) == 9


def test_an_image_that_is_not_begun_in_time_is_not_computed(gate):
    with agflow.Server(gate, max_batch=8) as server:
        submit_behind_the_gate(server, gate, ())
        late, patient = server.submit(image(3), deadline_ms=20), server.submit(image(4))
        soon = server.submit(image(5), deadline_ms=60_000)
        time.sleep(0.05)
        gate.opened.set()
        with pytest.raises(DeadlineError, match="longer than its deadline_ms"):
            late.result(SOON)
        assert (float(patient.result(SOON)), float(soon.result(SOON))) == (4, 5)
        with pytest.raises(InvalidValueError, match="deadline_ms is 0"):
            server.submit(image(1), deadline_ms=0)
    assert gate.batches == [1, 2]


def test_a_full_queue_refuses_when_it_is_told_to(gate):
    with agflow.Server(gate, max_batch=2, max_queue=2, refuse_when_full=True) as server:
        futures = submit_behind_the_gate(server, gate, (0, 1))
        with pytest.raises(BusyError, match="2 images wait already"):
            server.submit(image(7))
        gate.opened.set()
        assert [float(future.result(SOON)) for future in futures] == [-1, 0, 1]
        assert float(server.submit(image(7)).result(SOON)) == 7


def test_who_waits_for_room_waits_no_longer_than_its_deadline(gate):
    with agflow.Server(gate, max_batch=1, max_queue=1) as server:
        submit_behind_the_gate(server, gate, (0,))
        start = time.perf_counter()
        with pytest.raises(DeadlineError, match="deadline_ms"):
            server.submit(image(7), deadline_ms=50)
        assert 0.04 < time.perf_counter() - start < 5
        gate.opened.set()


def test_images_of_other_sizes_have_a_batch_of_their_own(cascade):
    with agflow.Server(cascade, max_batch=3, max_wait_ms=50) as server:
        good, odd, late = (server.submit(torch.randn(3, size, size)) for size in (16, 9, 16))
        assert good.result(SOON).shape == late.result(SOON).shape == (5,)
        with pytest.raises(ShapeError, match=r"\[1, 3, 9, 9\], VisionTransformer takes"):
            odd.result(SOON)


def test_bad_images_are_refused_before_they_spoil_a_batch(cascade):
    with agflow.Server(cascade) as server:
        with pytest.raises(ShapeError, match=r"\(1, 3, 16, 16\), expected \[C, H, W\]"):
            server.submit(torch.randn(1, 3, 16, 16))
        with pytest.raises(NonFiniteError, match="NaN or infinite"):
            server.submit(torch.full((3, 16, 16), float("nan")))
        with pytest.raises(DtypeError, match="uint8, expected floats"):
            server.submit(torch.zeros(3, 16, 16, dtype=torch.uint8))
        with pytest.raises(DtypeError, match="the image is a list"):
            server.submit([[0.0]])
        assert server.latency.count == 0 and str(server.latency) == "no call yet"
        assert server.submit(np.zeros((3, 16, 16), np.float32)).result(SOON).shape == (5,)


def test_a_full_queue_holds_callers_back(gate):
    with agflow.Server(gate, max_batch=2, max_queue=2) as server:
        submit_behind_the_gate(server, gate, (0, 1))
        answers = []
        late = threading.Thread(
            target=lambda: answers.append(float(server.submit(image(7)).result(SOON)))
        )
        late.start()
        late.join(0.2)
        assert late.is_alive() and len(server._requests._waiting) == 2
        gate.opened.set()
        late.join(SOON)
        assert answers == [7]


def test_closing_answers_what_waits_and_refuses_more(gate):
    server = agflow.Server(gate, max_batch=2)
    futures = submit_behind_the_gate(server, gate, range(5))
    threading.Timer(0.1, gate.opened.set).start()
    server.close()
    assert [float(future.result(0)) for future in futures] == [-1, *range(5)]
    with pytest.raises(ClosedError, match="server is closed"):
        server.submit(image(0))
    server.close()


def test_closing_wakes_who_waits_for_room(gate):
    server = agflow.Server(gate, max_batch=1, max_queue=1)
    submit_behind_the_gate(server, gate, (0,))
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(server.submit, image(1))
        time.sleep(0.1)
        threading.Timer(0.1, gate.opened.set).start()
        server.close()
        with pytest.raises(ClosedError):
            late.result(SOON)


def test_an_exception_in_the_block_cancels_what_waits(gate):
    with pytest.raises(KeyboardInterrupt), agflow.Server(gate, max_batch=2) as server:
        futures = submit_behind_the_gate(server, gate, range(5))
        threading.Timer(0.1, gate.opened.set).start()
        raise KeyboardInterrupt
    assert float(futures[0].result(0)) == -1 and all(future.cancelled() for future in futures[1:])
    with pytest.raises(CancelledError):
        futures[1].result(0)


def test_cancelled_images_are_not_computed(gate):
    with agflow.Server(gate, max_batch=8) as server:
        futures = submit_behind_the_gate(server, gate, range(4))
        assert futures[1].cancel() and futures[3].cancel() and not futures[0].cancel()
        gate.opened.set()
        assert float(futures[4].result(SOON)) == 3
    assert gate.batches == [1, 2]


def test_callbacks_may_submit_to_a_full_queue_and_close(gate):
    server = agflow.Server(gate, max_batch=1, max_queue=1)
    more = []
    first, second = submit_behind_the_gate(server, gate, (1,))
    first.add_done_callback(lambda _: more.append(server.submit(image(5))))
    second.add_done_callback(lambda _: server.close())
    gate.opened.set()
    wait([second], SOON)
    server._thread.join(SOON)
    assert not server._thread.is_alive() and float(more[0].result(0)) == 5


def test_a_server_that_nobody_has_ends_its_thread():
    server = agflow.Server(Gate())
    thread, future = server._thread, server.submit(image(2))
    assert float(future.result(SOON)) == 2
    del server
    gc.collect()
    thread.join(SOON)
    assert not thread.is_alive()


def test_limits_are_checked(cascade):
    for limits in (
        {"max_batch": 0},
        {"max_batch": 8, "max_queue": 7},
        {"max_wait_ms": -1},
        {"max_wait_ms": float("nan")},
    ):
        with pytest.raises(InvalidValueError, match="expected"):
            agflow.Server(cascade, **limits)


SCRIPT = """
import os, sys, threading, time, torch
from torch import nn
from agflow.cascade.server import Server

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
    def forward(self, x):
        time.sleep(0.2)
        return x.mean((2, 3))

server = Server(Slow(), max_batch=1)
futures = [server.submit(torch.ones(1, 2, 2)) for _ in range(500)]  # 100 s of work
print("ready", flush=True)
"""


def ended(script, number=None):
    """(status, output) of a Python that ends once it is ready, or after a signal that follows."""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        if number is not None:
            time.sleep(0.3)
            process.send_signal(number)
        out, complaint = process.communicate(timeout=SOON)
        return process.returncode, out + complaint
    finally:
        process.kill()


def test_the_interpreter_exits_with_a_server_at_work():
    status, said = ended(SCRIPT)
    assert (status, said) == (0, "")


@pytest.mark.parametrize(
    "waiting",
    [
        "server.close()",
        "with server:\n    futures[-1].result()",
        "server.__init__(Slow(), 1, 0, 1)\nwhile True: server.submit(torch.ones(1, 2, 2))",
    ],
)
def test_ctrl_c_ends_a_program_that_waits(waiting):
    status, said = ended(SCRIPT + waiting, signal.SIGINT)
    assert said.rstrip().endswith("KeyboardInterrupt") and status == -signal.SIGINT


def test_a_fork_is_refused_and_both_end():
    status, said = ended(
        SCRIPT
        + """
child = os.fork()
if child == 0:
    try:
        server.submit(torch.ones(1, 2, 2))
    except Exception as error:
        print(type(error).__name__, "in this forked child" in str(error), flush=True)
    server.close()
    sys.exit(7)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), float(futures[0].result()))
"""
    )
    assert (status, said) == (0, "ForkedProcessError True\nchild 7 1.0\n")


def test_percentiles_are_durations_that_occurred_lately(monkeypatch):
    measured = Durations()
    for milliseconds in range(1, 201):
        measured.add(milliseconds / 1e3)
    assert (
        measured.latency == (200, 0.1, 0.198)
        and str(measured.latency) == "p50 100.00 ms, p99 198.00 ms of 200"
    )
    monkeypatch.setattr(durations, "KEPT", 3)
    short = Durations()
    for seconds in (9.0, 1.0, 2.0, 3.0):
        short.add(seconds)
    assert short.latency == (3, 2.0, 3.0)
