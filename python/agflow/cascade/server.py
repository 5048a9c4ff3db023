"""A server that collects single images from many threads into batches for a cascade."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import traceback
import weakref
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np
import torch

from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow.cascade.cascade import Cascade
from agflow.data.batches import read_images
from agflow.errors import (
    BusyError,
    ClosedError,
    DeadlineError,
    DtypeError,
    ForkedProcessError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from agflow.evaluation.durations import Durations, Latency

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    image_CHW: torch.Tensor
    submitted: float
    expires: float  # by perf_counter
    future: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple:
        """Shape, dtype and device, which the images of a batch have in common."""
        return self.image_CHW.shape, self.image_CHW.dtype, self.image_CHW.device

    def begin(self) -> bool:
        """Whether an answer is still wanted: nobody cancelled or answered it, and it is in time."""
        future = self.future
        if future.done() and not future.cancelled():
            return False  # its owner gave it a result
        if not (future.running() or future.set_running_or_notify_cancel()):
            return False
        if time.perf_counter() <= self.expires:
            return True
        self.answer(error=_late())
        return False

    def answer(
        self, logits_K: torch.Tensor | None = None, *, error: BaseException | None = None
    ) -> None:
        """Give the future its result or error, whatever its owner made of it."""
        try:
            if error is None:
                self.future.set_result(logits_K)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass  # its owner gave it another result
        except BaseException:  # of a callback: it must not end the thread that serves everybody
            _log.exception("a callback of a server's future failed")


def _late() -> DeadlineError:
    return DeadlineError(
        "the image waited longer than its deadline_ms and was not computed: "
        "allow more time, or send fewer images at once"
    )


class _Requests:
    """A bounded queue from many threads to one worker."""

    def __init__(self, max_queue: int):
        self._max_queue = max_queue
        self._waiting: deque[_Request] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, request: _Request, *, refuse: bool, wait: bool) -> None:
        """Append where there is room; else refuse, wait for room, or append all the same."""
        with self._changed:
            full = lambda: not self._closed and len(self._waiting) >= self._max_queue
            if refuse and full():
                raise BusyError(
                    f"{self._max_queue} images wait already, expected fewer than max_queue: "
                    "send this one again later"
                )
            while wait and full():
                left = request.expires - time.perf_counter()
                if left <= 0:
                    raise _late()
                self._changed.wait(None if left == math.inf else left)
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
    refuse_when_full : :meth:`submit` raises BusyError then, instead of waiting

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
        self,
        cascade: Cascade,
        max_batch: int = default("serve", "max_batch"),
        max_wait_ms: float = default("serve", "max_wait_ms"),
        max_queue: int = default("serve", "max_queue"),
        *,
        refuse_when_full: bool = False,
    ):
        if max_batch < 1 or max_queue < max_batch:
            raise InvalidValueError(
                f"max_batch is {max_batch} and max_queue {max_queue}, "
                "expected max_batch from 1 and a queue of at least one batch"
            )
        if not 0 <= max_wait_ms < float("inf"):
            raise InvalidValueError(f"max_wait_ms is {max_wait_ms}, expected milliseconds from 0")
        self._pid, self._refuse = os.getpid(), refuse_when_full
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

    def submit(
        self, image_CHW: torch.Tensor, *, deadline_ms: float | None = None
    ) -> Future[torch.Tensor]:
        """Queue an image and return the future of its logits.

        Parameters
        ----------
        image_CHW : float [C, H, W], as the cascade takes them; not to be changed before the result.
            A bad image is refused here, or gets its own error: images that share its batch are
            answered all the same
        deadline_ms : milliseconds from now in which its batch must begin; after that the future
            raises DeadlineError and the image is not computed. None waits as long as it takes

        Returns
        -------
        future of the cascade's logits [K], on the CPU. A callback (``add_done_callback``) runs in
        the server's thread and delays the next batch; what it raises is logged

        Raises
        ------
        ShapeError, DtypeError
            The image has not three dimensions, or is no tensor of floats.
        NonFiniteError
            A pixel is NaN or infinite.
        InvalidValueError
            The deadline is not above 0.
        BusyError, DeadlineError
            The queue is full and the server refuses then; or it was full until the deadline.
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
        if deadline_ms is not None and not deadline_ms > 0:
            raise InvalidValueError(f"deadline_ms is {deadline_ms}, expected milliseconds above 0")
        expires = math.inf if deadline_ms is None else submitted + deadline_ms / 1e3
        request = _Request(_checked(image_CHW), submitted, expires)
        # A callback that submits runs in the one thread that makes room, so it must not wait.
        elsewhere = threading.current_thread() is not self._thread
        self._requests.put(request, refuse=self._refuse, wait=elsewhere)
        return request.future

    @property
    def latency(self) -> Latency:
        """p50 and p99 from :meth:`submit` to the result, in seconds, of at most the latest 10,000;
        of no result yet, ``count`` is 0 and they are NaN."""
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


def _checked(image_CHW: torch.Tensor) -> torch.Tensor:
    """The image as a tensor of finite floats."""
    if not isinstance(image_CHW, (torch.Tensor, np.ndarray)):
        raise DtypeError(
            f"the image is a {type(image_CHW).__name__}, expected a tensor [C, H, W] of floats: "
            "preprocess it first (agflow.data.Preprocessing)"
        )
    if image_CHW.ndim != 3:
        raise ShapeError(
            f"the image has the shape {tuple(image_CHW.shape)}, expected [C, H, W]: "
            "submit one image at a time"
        )
    image_CHW = read_images(image_CHW[None])[0]
    if not image_CHW.isfinite().all():
        raise NonFiniteError(
            "the image holds NaN or infinite values, expected finite ones: check how it was loaded"
        )
    return image_CHW


def _serve(
    cascade: Cascade, requests: _Requests, max_batch: int, max_wait: float, durations: Durations
) -> None:
    while batch := requests.take(max_batch, max_wait):
        _answer(cascade, [request for request in batch if request.begin()], durations)
        del batch  # else the last results would live until the next batch


def _answer(cascade: Cascade, batch: list[_Request], durations: Durations) -> None:
    """Answer the requests of a batch; of one that fails, each half by itself.

    So an image that overflows fails alone, after a number of passes that is the logarithm of the
    batch.
    """
    if not batch:
        return
    logits_BK = _logits(cascade, [request.image_CHW for request in batch])
    if isinstance(logits_BK, torch.Tensor):
        for request, logits_K in zip(batch, logits_BK, strict=True):
            durations.add(time.perf_counter() - request.submitted)
            request.answer(logits_K)
    elif len(batch) == 1:
        batch[0].answer(error=logits_BK)
    else:
        half = len(batch) // 2
        _answer(cascade, batch[:half], durations)
        _answer(cascade, batch[half:], durations)


def _logits(cascade: Cascade, images: list[torch.Tensor]) -> torch.Tensor | BaseException:
    """The cascade's logits [B, K] on the CPU, or its error of whatever kind."""
    try:
        return cascade(torch.stack(images).to(device_of(cascade))).cpu()
    except BaseException as error:
        chain: BaseException | None = error
        while chain is not None:  # whoever keeps the error must not keep the images and activations
            traceback.clear_frames(chain.__traceback__)
            chain = chain.__cause__ or chain.__context__
        return error
