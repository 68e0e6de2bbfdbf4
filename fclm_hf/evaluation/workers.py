"""Worker processes that compute metrics while the model works on the next image."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any

import numpy as np

from .protocols import Rows, measure_sample


Callback = Callable[[Rows], None]


class ScoringPool:
    """Scores mattes in worker processes, with a bound on the number of pending tasks to limit memory.

    Use it as a context manager: at the end of the block it waits for pending tasks, unless there was an error.

    Args:
        workers: Number of processes; 0 scores in the calling process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None
        self.pending: dict[Future, Callback] = {}

    def submit(
        self,
        protocol: str,
        preds: list[np.ndarray | None],
        targets: list[np.ndarray],
        trimaps: list[np.ndarray | None],
        callback: Callback,
    ) -> None:
        """Score the mattes of one image with [`measure_sample`].

        Args:
            protocol: Name of the protocol.
            preds: See [`Protocol.measure`].
            targets: See [`Protocol.measure`].
            trimaps: See [`Protocol.measure`].
            callback: Called with the rows, later and in any order, in the calling process.

        Raises:
            RuntimeError: If a worker process died.
        """
        if not self.workers:
            callback(measure_sample(protocol, preds, targets, trimaps))
            return
        if self.pool is None:
            self.pool = ProcessPoolExecutor(self.workers, mp_context=_make_context(), initializer=_start_worker)
        self._collect(2 * self.workers)
        try:
            self.pending[self.pool.submit(measure_sample, protocol, preds, targets, trimaps)] = callback
        except BrokenProcessPool as error:
            raise _explain(error) from error

    def finish(self) -> None:
        """Wait for all pending tasks and their callbacks."""
        self._collect(0)

    def _collect(self, at_most: int) -> None:
        """Wait until at most this many tasks are pending."""
        while len(self.pending) > at_most:
            for future in wait(self.pending, return_when=FIRST_COMPLETED).done:
                callback = self.pending.pop(future)
                try:
                    callback(future.result())
                except BrokenProcessPool as error:
                    raise _explain(error) from error

    def __enter__(self) -> "ScoringPool":
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            if self.pool is not None:
                self.pool.shutdown(wait=kind is None, cancel_futures=True)


def _make_context() -> BaseContext:
    """Return a context without fork, which can hang in a process with torch threads.

    A fork server is preferred, because it imports the package only once.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([measure_sample.__module__])
    return context


def _explain(error: Exception) -> RuntimeError:
    """Return an error that names the likely cause."""
    return RuntimeError(f"A worker process ended unexpectedly, perhaps out of memory: {error}")


def _start_worker() -> None:
    """Set up a worker process."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the main process
    Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    """End this worker when the main process is killed, which would leave it waiting for tasks forever."""
    parent_process().join()
    os._exit(1)
