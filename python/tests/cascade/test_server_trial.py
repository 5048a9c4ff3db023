"""Many threads and bad requests for a while: memory stays flat and every answer is its own.

AGFLOW_TRIALS is the number of seconds (5 by default; 600 for the trial that is reported).
"""

import gc
import os
import random
import threading
import time

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import agflow
from agflow.errors import AgflowError, DeadlineError, NonFiniteError

SECONDS = int(os.environ.get("AGFLOW_TRIALS", "5"))
THREADS, IMAGES = 16, 64
BAD_REQUESTS = 2000 if SECONDS >= 60 else 200
SOON = 120


def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def leaving(_):
    raise SystemExit(3)


def overflowing(server, x):
    with pytest.raises(NonFiniteError):
        server.submit(x * 1e38).result(SOON)


def refused_at_once(server, bad):
    with pytest.raises(AgflowError):
        server.submit(bad)


def of_another_size(server, x):
    with pytest.raises(AgflowError, match="takes"):
        server.submit(x[:, :9, :9]).result(SOON)


def late(server, x):
    try:
        server.submit(x, deadline_ms=0.01).result(SOON)
    except DeadlineError:
        pass


def answered_by_its_owner(server, x):
    future = server.submit(x)
    try:
        future.set_result(None)
    except Exception:  # it was answered meanwhile
        pass


BAD = [
    overflowing,
    of_another_size,
    late,
    answered_by_its_owner,
    lambda server, x: refused_at_once(server, x * float("nan")),
    lambda server, x: refused_at_once(server, x[None]),
    lambda server, x: refused_at_once(server, (x * 9).byte()),
    lambda server, x: refused_at_once(server, "image"),
    lambda server, x: server.submit(x).cancel(),
    lambda server, x: server.submit(x).add_done_callback(leaving),
]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_and_bad_requests_for_a_while(capsys, caplog):
    caplog.set_level("CRITICAL")
    light, heavy = (
        VisionTransformer(
            img_size=16, patch_size=8, num_classes=5, embed_dim=32, depth=depth, num_heads=2
        ).eval()
        for depth in (1, 3)
    )
    cascade = agflow.Cascade(light, heavy, 0.4)
    images = torch.randn(IMAGES, 3, 16, 16)
    with torch.no_grad():
        alone = torch.cat([light(images), heavy(images)])
    counts, wrong, sizes, lock = {"good": 0, "bad": 0}, [], [], threading.Lock()
    end = time.monotonic() + SECONDS

    def ask(number):
        draw = random.Random(number)
        pause = SECONDS * THREADS / BAD_REQUESTS
        due = time.monotonic() + draw.random() * pause
        while time.monotonic() < end:
            row, bad = draw.randrange(IMAGES), time.monotonic() > due
            if bad:
                due += pause
                draw.choice(BAD)(server, images[row])
            else:
                found = server.submit(images[row]).result(SOON)
                own = [row, row + IMAGES]  # of the light or the heavy expert
                if not any(torch.allclose(found, alone[i], rtol=1e-3, atol=1e-4) for i in own):
                    wrong.append(row)
            with lock:
                counts["bad" if bad else "good"] += 1

    with agflow.Server(cascade, max_batch=16, max_wait_ms=2, max_queue=64) as server:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            time.sleep(max(0.5, SECONDS / 60))
            gc.collect()
            sizes.append(resident_mib())
        for thread in threads:
            thread.join(SOON)
        assert not any(thread.is_alive() for thread in threads)
        last = server.submit(images[0]).result(SOON)
        assert any(torch.allclose(last, alone[i], rtol=1e-3, atol=1e-4) for i in (0, IMAGES))
    with capsys.disabled():
        print(
            f"\n{SECONDS} s, {THREADS} threads: {counts['good']} answers, {len(wrong)} of another "
            f"image, {counts['bad']} bad requests; {sizes[len(sizes) // 4]:.0f} MiB after a "
            f"quarter, {sizes[-1]:.0f} MiB at the end"
        )
    assert not wrong and counts["bad"] > BAD_REQUESTS / 3
    assert sizes[-1] - sizes[len(sizes) // 4] < 16
