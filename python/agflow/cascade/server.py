"""A server that collects single images from many threads into batches for a cascade."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from agflow._utils.devices import device_of
from agflow.cascade.cascade import Cascade
from agflow.errors import (
    ClosedError,
    ForkedProcessError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from agflow.evaluation.durations import Durations, Latency


@dataclass(frozen=True)
class _Request:
    image_CHW: torch.Tensor
    submitted: float
    future: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple:
        """Shape, dtype and device, which the images of a batch have in common."""
        return self.image_CHW.shape, self.image_CHW.dtype, self.image_CHW.device


class _Requests:
    """A bounded queue from many threads to one worker."""

    def __init__(self, max_queue: int):
        self._max_queue = max_queue
        self._waiting: deque[_Request] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, request: _Request, *, wait: bool) -> None:
        """Append when there is room, or at once."""
        with self._changed:
            while wait and not self._closed and len(self._waiting) >= self._max_queue:
                self._changed.wait()
            if self._closed:
                raise ClosedError("the server is closed and takes no more images: open another one")
            self._waiting.append(request)
            self._changed.notify_all()

    def take(self, max_batch: int, max_wait: float) -> list[_Request]:
        """The next batch, of one kind, full or as old as it may get; empty once the queue is closed
        and drained."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while self._waiting and len(self._waiting) < max_batch and not self._closed:
                left = self._waiting[0].submitted + max_wait - time.perf_counter()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch: list[_Request] = []
            while (
                self._waiting
                and len(batch) < max_batch
                and (not batch or self._waiting[0].kind == batch[0].kind)
            ):
                batch.append(self._waiting.popleft())
            self._changed.notify_all()
            return batch

    def close(self, *, drain: bool) -> None:
        with self._changed:
            self._closed = True
            dropped = [] if drain else list(self._waiting)
            if dropped:
                self._waiting.clear()
            self._changed.notify_all()
        for request in dropped:  # without the lock, which a future's callback may take
            request.future.cancel()


class Server:
    """Collect single images from any threads into batches for a cascade.

    One thread of the server's own runs the cascade. A batch runs when ``max_batch`` images wait, or
    when the oldest has waited for ``max_wait_ms``; images that arrive while a batch runs form the
    next one. When the interpreter exits, or the server is dropped unclosed, it finishes the running
    batch and cancels the waiting images.

    Parameters
    ----------
    cascade : in evaluation mode; nobody else may call it meanwhile
    max_batch : greatest number of images in a batch
    max_wait_ms : milliseconds that an image may wait for others; 0 takes the images that wait
    max_queue : greatest number of waiting images; :meth:`submit` then waits for room, which slows
        the callers to the cascade's pace

    Raises
    ------
    InvalidValueError
        A limit is out of its range.

    Examples
    --------
    >>> import agflow, torch
    >>> heavy, _, _ = agflow.load_model("example")
    >>> cascade = agflow.Cascade(agflow.models.at_image_size(heavy, 20), heavy, 0.8).eval()
    >>> with agflow.Server(cascade) as server:
    ...     futures = [server.submit(image_CHW) for image_CHW in torch.zeros(3, 1, 28, 28)]
    ...     shapes = [future.result().shape for future in futures]
    >>> shapes
    [torch.Size([10]), torch.Size([10]), torch.Size([10])]
    """

    def __init__(
        self, cascade: Cascade, max_batch: int = 32, max_wait_ms: float = 5.0, max_queue: int = 1024
    ):
        if max_batch < 1 or max_queue < max_batch:
            raise InvalidValueError(
                f"max_batch is {max_batch} and max_queue {max_queue}, "
                "expected max_batch from 1 and a queue of at least one batch"
            )
        if not 0 <= max_wait_ms < float("inf"):
            raise InvalidValueError(f"max_wait_ms is {max_wait_ms}, expected milliseconds from 0")
        self._pid = os.getpid()
        self._requests, self._durations = _Requests(max_queue), Durations()
        # The thread refers to the queue and not to the server, so that a server without any other
        # reference is collected.
        self._thread = threading.Thread(
            target=_serve,
            args=(cascade, self._requests, max_batch, max_wait_ms / 1e3, self._durations),
            name="agflow server",
            daemon=True,
        )
        self._thread.start()
        self._at_exit = weakref.finalize(
            self, _stop, self._requests, self._thread, self._pid, drain=False
        )

    def submit(self, image_CHW: torch.Tensor) -> Future[torch.Tensor]:
        """Queue an image and return the future of its logits.

        Parameters
        ----------
        image_CHW : float [C, H, W], as the cascade takes them; not to be changed before the result.
            A bad image is refused here, so that it fails nobody else's batch

        Returns
        -------
        future of the cascade's logits [K], on the CPU. An error of a batch is the error of each of
        its futures. A callback (``add_done_callback``) runs in the server's thread and delays the
        next batch

        Raises
        ------
        ShapeError
            The image has not three dimensions.
        NonFiniteError
            A pixel is NaN or infinite.
        ClosedError
            The server was closed, before or while the image waited for room.
        ForkedProcessError
            This process is a fork of the one that opened the server.
        """
        submitted = time.perf_counter()
        if os.getpid() != self._pid:
            raise ForkedProcessError(
                "the server runs in the process that opened it, not in this forked child: "
                "open one here, in a process that was spawned"
            )
        if image_CHW.ndim != 3:
            raise ShapeError(
                f"the image has the shape {tuple(image_CHW.shape)}, expected [C, H, W]: "
                "submit one image at a time"
            )
        if not image_CHW.isfinite().all():
            raise NonFiniteError(
                "the image holds NaN or infinite values, expected finite ones: "
                "check how it was loaded"
            )
        request = _Request(image_CHW, submitted)
        # A callback that submits runs in the one thread that makes room, so it must not wait.
        self._requests.put(request, wait=threading.current_thread() is not self._thread)
        return request.future

    @property
    def latency(self) -> Latency:
        """p50 and p99 from :meth:`submit` to the result, in seconds, of at most the latest 10,000.

        Raises
        ------
        EmptyError
            There was no result yet.
        """
        return self._durations.latency

    def close(self, *, drain: bool = True) -> None:
        """Refuse further images, answer those that wait and end the thread; again: no effect.

        Parameters
        ----------
        drain : False cancels the images that wait instead of answering them
        """
        _stop(self._requests, self._thread, self._pid, drain=drain)
        self._at_exit.detach()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; after an exception, Ctrl-C included, cancel the images that wait."""
        self.close(drain=kind is None)


def _stop(requests: _Requests, thread: threading.Thread, pid: int, *, drain: bool) -> None:
    if os.getpid() != pid:
        return  # a fork has no such thread, and its copy of the lock may be held for ever
    requests.close(drain=drain)
    if thread is not threading.current_thread():  # a callback of a future may close
        thread.join()


def _serve(
    cascade: Cascade, requests: _Requests, max_batch: int, max_wait: float, durations: Durations
) -> None:
    while batch := requests.take(max_batch, max_wait):
        wanted = [request for request in batch if request.future.set_running_or_notify_cancel()]
        _answer(cascade, wanted, durations)
        del batch, wanted  # else the last results would live until the next batch


def _answer(cascade: Cascade, batch: list[_Request], durations: Durations) -> None:
    if not batch:
        return
    try:
        device = device_of(cascade)
        logits_BK = cascade(torch.stack([request.image_CHW for request in batch]).to(device)).cpu()
    except BaseException as error:  # of whatever kind: a caller waits for it
        for request in batch:
            request.future.set_exception(error)
        return
    for request, logits_K in zip(batch, logits_BK, strict=True):
        durations.add(time.perf_counter() - request.submitted)
        request.future.set_result(logits_K)
