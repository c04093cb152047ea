"""Work spread over processes, for whatever is not a file in and a file out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

from nacre.batch.pool import busy, interrupt_workers, start_pool

Item = TypeVar("Item")
Out = TypeVar("Out")


class Workers(Generic[Item, Out]):
    """Fresh processes, each in a pool of its own: the end of one does not touch what the others do.

    Each calls `prepare` before its first work.
    """

    def __init__(self, work: Callable[[Item], Out], count: int, prepare: Callable[[], object] | None = None):
        self._work, self._prepare = work, prepare
        self._idle = [self._pool() for _ in range(count)]
        self._busy: dict[Future[Out], tuple[ProcessPoolExecutor, Item]] = {}

    def _pool(self) -> ProcessPoolExecutor:
        return start_pool(1, self._prepare, "spawn")

    @property
    def idle(self) -> int:
        """Workers that wait."""
        return len(self._idle)

    @property
    def under_way(self) -> int:
        """Items that are being worked on."""
        return len(self._busy)

    def submit(self, item: Item) -> None:
        """Give an item to a worker that waits."""
        pool = self._idle.pop()
        self._busy[pool.submit(_work, self._work, item)] = pool, item

    def wait(self) -> tuple[Item, Future[Out] | None]:
        """The next that ends; None where the process suddenly ended, for which another takes over."""
        future = wait(self._busy, return_when=FIRST_COMPLETED).done.pop()
        pool, item = self._busy.pop(future)
        died = isinstance(future.exception(), BrokenProcessPool)
        if died:
            pool.shutdown(wait=False)
        self._idle.append(self._pool() if died else pool)
        return item, None if died else future

    def close(self, interrupted: bool) -> None:
        """End the workers; interrupted, each takes away what it has half written."""
        if interrupted:
            interrupt_workers()
        for pool in [*self._idle, *(pool for pool, _ in self._busy.values())]:
            pool.shutdown(cancel_futures=True)


def spread(work: Callable[[Item], Out], items: Iterable[Item], jobs: int) -> Iterator[tuple[Item, Out | None]]:
    """(item, what `work` gave), as they end; None where the process suddenly ended.

    When the caller stops, by Ctrl-C say, so do the workers.
    """
    waiting = deque(items)
    workers = Workers(work, min(jobs, len(waiting)))
    try:
        while waiting or workers.under_way:
            while waiting and workers.idle:
                workers.submit(waiting.popleft())
            item, future = workers.wait()
            yield item, future.result() if future else None
    finally:
        workers.close(workers.under_way > 0)


def _work(work: Callable[[Item], Out], item: Item) -> Out:
    with busy():
        return work(item)
