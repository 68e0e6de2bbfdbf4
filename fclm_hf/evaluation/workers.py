"""Measuring in worker processes while the model works on the next image."""

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


Done = Callable[[Rows], None]


class ScoringPool:
    """Hands mattes to `workers` processes, few enough at a time to bound the memory; with 0 measures at once.

    A context manager: on the way out it waits for what is under way, after an error it does not.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None
        self.waiting: dict[Future, Done] = {}

    def submit(
        self,
        protocol: str,
        preds: list[np.ndarray | None],
        targets: list[np.ndarray],
        trimaps: list[np.ndarray | None],
        done: Done,
    ) -> None:
        """Calls `done` with the rows of [`measure_sample`], later and in any order, but in this process."""
        if not self.workers:
            done(measure_sample(protocol, preds, targets, trimaps))
            return
        if self.pool is None:
            self.pool = ProcessPoolExecutor(self.workers, mp_context=_make_context(), initializer=_start_worker)
        self._collect(2 * self.workers)
        try:
            self.waiting[self.pool.submit(measure_sample, protocol, preds, targets, trimaps)] = done
        except BrokenProcessPool as error:
            raise _explain(error) from error

    def finish(self) -> None:
        self._collect(0)

    def _collect(self, at_most: int) -> None:
        """Waits until `at_most` are under way."""
        while len(self.waiting) > at_most:
            for future in wait(self.waiting, return_when=FIRST_COMPLETED).done:
                done = self.waiting.pop(future)
                try:
                    done(future.result())
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
    """Not fork: a process in which torch has threads can hang. A fork server imports the package once for all."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([measure_sample.__module__])
    return context


def _explain(error: Exception) -> RuntimeError:
    return RuntimeError(f"A worker process ended unexpectedly, perhaps for want of memory: {error}")


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    """A main process that is killed tells its workers nothing: they would wait for work for ever."""
    parent_process().join()
    os._exit(1)
