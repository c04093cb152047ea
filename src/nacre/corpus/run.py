"""A corpus made from a source: shards planned in order, worked on side by side, each counted only when it is whole."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from nacre.batch.messages import complain, console, is_terminal, tell, warn
from nacre.batch.report import duration, size
from nacre.core.errors import NacreError, UsageError
from nacre.core.units import kbps
from nacre.corpus import manifest as manifests
from nacre.corpus.coders import Making
from nacre.corpus.columns import columns_of
from nacre.corpus.engine import Engine, LocalEngine, RayEngine, cpus
from nacre.corpus.manifest import ERRORS, Manifest
from nacre.corpus.recordings import Recording, Shard, Unreadable, shards_of
from nacre.corpus.records import PART
from nacre.corpus.shards import check_destination, tree_name
from nacre.corpus.sources import Source
from nacre.corpus.work import Job, Made, coder, marked_row

ENGINES = ("local", "ray")
DEATHS_A_ROW = 3  # of a process at the same row, before the row is left out
MOST_DEATHS = 10  # of processes over a shard at various rows, before it is given up
SHOWN = 20  # failures that are shown at once; all are in the table


@dataclass(frozen=True)
class Request:
    """What a corpus is made of, of which kind, where, and how it is worked; the last line changes no byte."""

    source: Source
    making: Making
    folder: str
    to: str = "parquet"
    shard_rows: int = 1000
    shard_mb: float = 256.0
    again: bool = False  # shards of other recordings than the source has now
    retry: bool = False  # shards in which something failed
    engine: str = "local"
    jobs: int | None = None
    address: str | None = None
    quiet: bool = False

    def check(self) -> None:
        """Raise UsageError for what cannot be meant."""
        check_destination(self.to, self.making.what)
        if self.engine not in ENGINES:
            raise UsageError(f"there is no engine {self.engine}; give --engine {' or '.join(ENGINES)}")
        if self.address and self.engine != "ray":
            raise UsageError(f"engine {self.engine} has no address; add --engine ray")
        if self.shard_rows < 1 or not self.shard_mb > 0:
            sizes = f"{self.shard_rows} and {self.shard_mb:g}"
            raise UsageError(f"--shard-rows and --shard-mb are {sizes}; both must be above 0")


@dataclass
class Summary:
    """What a destination holds, and what this run took. `failed` counts recordings, `lost` shards."""

    rows: int = 0
    failed: int = 0
    partial: int = 0
    lost: int = 0
    shards: int = 0
    seconds: float = 0.0
    payload_bytes: int = 0
    file_bytes: int = 0
    made_shards: int = 0
    made_rows: int = 0
    made_seconds: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every recording is there, whole."""
        return not self.failed and not self.lost

    def lines(self, what: str) -> list[str]:
        """For people."""
        held = f"{what}: {self.rows} recordings in {self.shards} shards, {duration(self.seconds)} of sound"
        held += f"  {size(self.payload_bytes)}, {kbps(self.payload_bytes, self.seconds):.2f} kb/s"
        made = f"this run: {self.made_shards} shards, {self.made_rows} recordings  {self.wall_s:.1f} s"
        if self.cpu_s > 0 and self.wall_s > 0:
            made += (
                f", {self.made_seconds / self.wall_s:.0f} x real time, {self.made_seconds / self.cpu_s:.0f} x a core"
            )
            made += f"  peak {self.peak_mb:.0f} MB a worker"
        return [held, made]


def run_corpus(request: Request) -> Summary:
    """Make what is not there yet, and say what came of it. Raises UsageError, AudioError, BundleError.

    Processes are started, so a script that calls this must do so under `if __name__ == "__main__"`.
    """
    request.check()
    facts = request.making.facts()
    columns = columns_of(coder(request.making).columns, request.source.types)
    manifest = Manifest(request.folder)
    with manifest.held():
        manifest.begin(manifests.describe(facts, request.to, columns, request.shard_rows, request.shard_mb))
        return _Run(request, manifest, {name: str(value) for name, value in facts.items()}).work()


class _Run:
    """One run over a destination."""

    def __init__(self, request: Request, manifest: Manifest, facts: dict[str, str]):
        self.request, self.manifest, self._facts = request, manifest, facts
        self.summary, self._planned = Summary(), 0
        self._whole_plan = False
        self._again = deque[Job]()
        self._deaths: dict[int, list[int | None]] = {}
        self._lost: list[tuple[int, str]] = []
        self._lost_in_turn = self._shown = 0

    def work(self) -> Summary:
        """All shards; what is whole when something stops it stays."""
        started = time.perf_counter()
        try:
            with _progress(self) as advance:
                self._shards(advance)
        finally:
            self.summary.wall_s = time.perf_counter() - started
            self.manifest.finish(self._planned if self._whole_plan else None, self._lost)
            self._sum_up()
        return self.summary

    def _shards(self, advance: Callable[[], object]) -> None:
        jobs, engine, interrupted = self._jobs(), None, True
        ahead = next(jobs, None)
        try:
            while ahead or self._again or (engine and engine.under_way):
                engine = engine or self._engine()
                while (ahead or self._again) and engine.under_way < engine.workers:
                    if self._again:
                        engine.submit(self._again.popleft())
                    elif ahead:
                        engine.submit(ahead)
                        ahead = next(jobs, None)
                self._take(*engine.wait())
                advance()
                if self._lost_in_turn > engine.workers:
                    tell(f"stopped: {self._lost_in_turn} shards in turn failed; mend it and run the same again", "red")
                    ahead = None
                    self._again.clear()
            interrupted = False
        finally:
            if engine:
                engine.close(interrupted)

    def _engine(self) -> Engine:
        request = self.request
        if request.engine == "ray":
            return RayEngine(request.jobs, request.address)
        return LocalEngine(request.jobs or cpus(), request.making, request.to)

    def plan(self) -> Iterator[Shard]:
        """Every shard of the source."""
        recordings = self.request.source.recordings()
        if self.request.to == "tree":
            recordings = _once(recordings)
        return shards_of(recordings, self.request.shard_rows, self.request.shard_mb)

    def _jobs(self) -> Iterator[Job]:
        """What is not done yet, planned only as far as it is asked for."""
        request = self.request
        for shard in self.plan():
            self._planned = shard.number + 1
            if self.manifest.is_done(shard.number, shard.plan(), request.again) and not (
                request.retry and self.manifest.records[shard.number].failures
            ):
                continue
            yield Job(shard, request.making, request.to, request.source.types, self._facts, request.folder)
        if not self._planned:
            raise UsageError(f"{request.source.path} has no recordings")
        if (more := max(self.manifest.records, default=0) - self._planned + 1) > 0 and not request.again:
            advice = "choose another destination, or --force to take them away"
            raise UsageError(f"{request.folder} has {more} shards more than the source has now; {advice}")
        self._whole_plan = True

    def _take(self, job: Job, outcome: Made | NacreError | None) -> None:
        """What came of a job."""
        if isinstance(outcome, Made):
            self.manifest.add(outcome.record)
            self._lost_in_turn = 0
            self._count(outcome)
            for failure in outcome.record.failures:
                self._tell(f"shard {job.shard.number}, row {failure.row}, {failure.key}: {failure.error}")
        elif outcome is None:
            self._ended(job, marked_row(job))
        else:
            self._lose(job, str(outcome))

    def _ended(self, job: Job, row: int | None) -> None:
        """The process of a job is gone: again, without the row at which that happens time and again."""
        number, fatal = job.shard.number, dict(job.fatal)
        seen = self._deaths.setdefault(number, [])
        seen.append(row)
        if row is not None and seen.count(row) >= DEATHS_A_ROW:
            fatal[row] = "its process ended suddenly, time and again; was it killed for memory?"
        if len(seen) > MOST_DEATHS + DEATHS_A_ROW * len(fatal):
            self._lose(job, f"{len(seen)} processes ended suddenly over it, last at row {row}")
            return
        warn(f"shard {number}: its process ended suddenly at {'row ' + str(row) if row is not None else 'its start'}")
        self._again.append(replace(job, fatal=fatal))

    def _lose(self, job: Job, error: str) -> None:
        self._lost.append((job.shard.number, error))
        self._lost_in_turn += 1
        first, last = job.shard.recordings[0].row, job.shard.recordings[-1].row
        self._tell(f"shard {job.shard.number}, rows {first} to {last}: {error}")

    def _tell(self, text: str) -> None:
        self._shown += 1
        if self._shown <= SHOWN:
            complain(text)

    def _count(self, made: Made) -> None:
        summary, record = self.summary, made.record
        summary.made_shards += 1
        summary.made_rows += record.rows
        summary.made_seconds += record.seconds
        summary.cpu_s += made.cpu_s
        summary.peak_mb = max(summary.peak_mb, made.peak_mb)

    def _sum_up(self) -> None:
        """Totals over all shards, to people and to the list of runs."""
        summary, request = self.summary, self.request
        records = self.manifest.records.values()
        summary.shards, summary.lost = len(records), len(self._lost)
        for record in records:
            summary.rows += record.rows
            summary.seconds += record.seconds
            summary.payload_bytes += record.payload_bytes
            summary.file_bytes += record.file_bytes
            summary.failed += len(record.failures)
            summary.partial += sum(failure.status == PART for failure in record.failures)
        if summary.made_shards:
            facts = {"engine": request.engine, "jobs": request.jobs or cpus(), **vars(summary)}
            self.manifest.note_run(facts)
        if not request.quiet:
            for line in summary.lines(request.making.what):
                tell(line)
        if not summary.good:
            incomplete = f" ({summary.partial} of them incomplete)" if summary.partial else ""
            lost = f", {summary.lost} shards not made" if summary.lost else ""
            tell(f"{summary.failed} recordings failed{incomplete}{lost}; see {request.folder}/{ERRORS}", "red")


def _once(recordings: Iterator[Recording]) -> Iterator[Recording]:
    """Recordings of which no two would have one file in a tree."""
    seen = Counter[int]()
    for recording in recordings:
        seen[name := hash(tree_name(recording.key))] += 1
        if seen[name] > 1:
            recording = replace(recording, place=Unreadable("its key was there before; in a tree all must differ"))
        yield recording


@contextmanager
def _progress(run: _Run) -> Iterator[Callable[[], object]]:
    """A bar of shards where somebody watches: to call after each."""
    if run.request.quiet or not is_terminal():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[sound]}")
    with Progress(*columns, TimeRemainingColumn(), console=console(), transient=True) as bar:
        shown, started = bar.add_task(run.request.making.what, total=None, sound=""), time.perf_counter()

        def count() -> None:
            with suppress(NacreError, OSError):  # the run itself will tell of it
                bar.update(shown, total=sum(1 for _ in run.plan()))

        def advance() -> None:
            summary = run.summary
            pace = summary.made_seconds / (time.perf_counter() - started)
            text = f"shards  {summary.made_seconds / 3600:.2f} h, {pace:.0f} x"
            bar.update(shown, completed=len(run.manifest.records), sound=text)

        threading.Thread(target=count, daemon=True).start()
        yield advance
