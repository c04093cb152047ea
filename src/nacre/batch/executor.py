"""Work spread over processes, for whatever is not a file in and a file out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from nacre.batch.pool import busy, interrupt_workers, start_pool

Item = TypeVar("Item")
Out = TypeVar("Out")


def spread(work: Callable[[Item], Out], items: Iterable[Item], jobs: int) -> Iterator[tuple[Item, Out | None]]:
    """(item, what `work` gave), as they end; None where the process suddenly ended.

    Workers are fresh processes, each in a pool of its own: the end of one does not touch what the others do. When the
    caller stops, by Ctrl-C say, so do they.
    """
    waiting = deque(items)
    idle = [start_pool(1, None, "spawn") for _ in range(min(jobs, len(waiting)))]
    under_way: dict[Future[Out], tuple[ProcessPoolExecutor, Item]] = {}
    try:
        while waiting or under_way:
            while waiting and idle:
                pool, item = idle.pop(), waiting.popleft()
                under_way[pool.submit(_work, work, item)] = pool, item
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                pool, item = under_way.pop(future)
                try:
                    result: Out | None = future.result()
                except BrokenProcessPool:
                    pool.shutdown()
                    pool, result = start_pool(1, None, "spawn"), None
                idle.append(pool)
                yield item, result
    finally:
        if under_way:
            interrupt_workers()
        for pool in [*idle, *(pool for pool, _ in under_way.values())]:
            pool.shutdown(cancel_futures=True)


def _work(work: Callable[[Item], Out], item: Item) -> Out:
    with busy():
        return work(item)
