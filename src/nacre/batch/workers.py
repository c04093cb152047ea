"""Files worked on side by side, in processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from nacre.batch.pool import busy, interrupt_workers, start_pool
from nacre.batch.report import Result
from nacre.batch.sources import Pair
from nacre.core.errors import NacreError

AHEAD = 64  # files given to a worker before the first of them is done: long ones must not hold up short ones


@dataclass(frozen=True)
class Crew:
    """So many processes: what each does once, before its first file, and then with every file."""

    attempt: Callable[[Pair], Result]
    jobs: int
    prepare: Callable[[], object] | None = None

    def results(self, pairs: list[Pair]) -> Iterator[Result]:
        """In the order of the pairs. If a process suddenly ends, the files under way are tried again, each alone."""
        waiting, broken = deque(pairs), list[Pair]()
        while waiting:
            under_way: deque[tuple[Future[Result], Pair]] = deque()
            with self._pool(len(waiting)) as pool:
                try:
                    while waiting or under_way:
                        while waiting and len(under_way) < AHEAD * self.jobs:
                            under_way.append((pool.submit(_attempt, self.attempt, waiting[0]), waiting.popleft()))
                        result = under_way[0][0].result()
                        under_way.popleft()
                        yield result
                except BrokenProcessPool:
                    broken += [pair for _, pair in under_way]
                except BaseException:  # Ctrl-C: without this the files under way would be worked to their end
                    interrupt_workers()
                    raise
        for pair in broken:
            yield self._alone(pair)

    def _alone(self, pair: Pair) -> Result:
        with self._pool(1) as pool:
            try:
                return pool.submit(_attempt, self.attempt, pair).result()
            except BrokenProcessPool:
                text = f"the worker died on {pair.source}, probably out of memory; try a smaller --jobs"
                return Result(error=NacreError(text), source=pair.source, target=pair.target)
            except BaseException:
                interrupt_workers()
                raise

    def _pool(self, count: int) -> ProcessPoolExecutor:
        return start_pool(min(self.jobs, count), self.prepare)


def _attempt(attempt: Callable[[Pair], Result], pair: Pair) -> Result:
    with busy():
        return attempt(pair)
