"""Worker processes that Ctrl-C stops at once, and that end soon after the one that started them, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from nacre.core.errors import NacreError

PARENT_LOOK_S = 0.5
_WORKER = {"busy": False, "stop": False}


def start_pool(jobs: int, prepare: Callable[[], object] | None, method: str | None = None) -> ProcessPoolExecutor:
    """A pool whose processes call `prepare` before their first work. `method` of multiprocessing: "spawn" and so on."""
    context = multiprocessing.get_context(method)
    return _Pool(jobs, context, initializer=_start_worker, initargs=(os.getpid(), prepare))


class _Pool(ProcessPoolExecutor):
    """Its processes start with Ctrl-C held back, which would end their imports in a traceback."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """As `ProcessPoolExecutor.submit`, which starts processes."""
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(work, *args, **named)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(work, *args, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt_workers() -> None:
    """Ctrl-C for all of them: what is half written is taken away."""
    for process in multiprocessing.active_children():
        with suppress(OSError):
            if process.pid:
                os.kill(process.pid, signal.SIGINT)


@contextmanager
def busy() -> Iterator[None]:
    """Around work in a worker: what comes from outside stops it there, and is only noted elsewhere."""
    if _WORKER["stop"]:
        raise KeyboardInterrupt
    _WORKER["busy"] = True
    try:
        yield
    finally:
        _WORKER["busy"] = False


def _start_worker(parent: int, prepare: Callable[[], object] | None) -> None:
    """Ctrl-C stops a worker's work, and is only noted while it waits, where it would end in a traceback."""

    def interrupt(*_: object) -> None:
        first, _WORKER["stop"] = not _WORKER["stop"], True
        if first and _WORKER["busy"]:  # a second one must not disturb the cleaning up after the first
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if hasattr(os, "getppid"):
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if prepare:
        with suppress(NacreError):  # every file will tell of it
            prepare()


def _end_with(parent: int) -> None:
    """Stop this process soon after the one that started it is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK_S)
    if _WORKER["busy"]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10 * PARENT_LOOK_S)  # to take away what is half written
    os._exit(1)
