"""Shards side by side: in processes of this machine, or as tasks of a Ray cluster. What comes back is the same."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Protocol

from nacre.batch.executor import Workers
from nacre.core.errors import AudioError, NacreError, UsageError
from nacre.corpus.coders import Making
from nacre.corpus.work import Job, Made, make_shard, prepare

Outcome = Made | NacreError | None  # None: the process ended before it could say anything


class Engine(Protocol):
    """Takes as many jobs as it has workers, and gives them back in the order in which they end."""

    name: str

    @property
    def workers(self) -> int:
        """How many jobs may be under way; it may change."""
        ...

    @property
    def under_way(self) -> int:
        """How many are."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a job."""
        ...

    def wait(self) -> tuple[Job, Outcome]:
        """The next that ends."""
        ...

    def close(self, interrupted: bool) -> None:
        """Let go of the workers, at once if interrupted."""
        ...


def cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fault(job: Job, error: BaseException) -> AudioError:
    return AudioError(f"{job.file} was not made: {error!r}; please report it")


class LocalEngine:
    """Processes of this machine."""

    name = "local"

    def __init__(self, jobs: int, making: Making, to: str):
        self.workers, self._processes = jobs, Workers(make_shard, jobs, partial(prepare, making, to))
        self.submit, self.close = self._processes.submit, self._processes.close

    @property
    def under_way(self) -> int:
        """Jobs that are being worked on."""
        return self._processes.under_way

    def wait(self) -> tuple[Job, Outcome]:
        """The next job that ends."""
        job, future = self._processes.wait()
        try:
            return job, future.result() if future else None
        except NacreError as error:
            return job, error
        except Exception as error:  # a fault of ours or of a library, which must not stop the other shards
            return job, _fault(job, error)


class RayEngine:
    """Tasks of Ray, a core each. Started here with `jobs` workers unless `address` or RAY_ADDRESS names a cluster.

    Tasks, not Ray Data: a shard is a task, so its rows are known before it runs, and the end of a task is the end of
    one shard, which can be told and tried again; Ray Data cuts its blocks by size, and does not say which rows died.
    """

    name = "ray"

    def __init__(self, jobs: int | None, address: str | None):
        self._ray = _ray()
        self._most = jobs
        self._jobs: dict[Any, Job] = {}
        _connect(self._ray, jobs, address)
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(make_shard)

    @property
    def workers(self) -> int:
        """Cores of the cluster as it is now, or as many of them as were asked for."""
        count = int(self._ray.cluster_resources().get("CPU", 1))
        return max(1, min(count, self._most) if self._most else count)

    @property
    def under_way(self) -> int:
        """Tasks that Ray has."""
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Give a task to the cluster."""
        self._jobs[self._task.remote(job)] = job

    def wait(self) -> tuple[Job, Outcome]:
        """The next task that ends."""
        ready, _ = self._ray.wait(list(self._jobs), num_returns=1)
        job = self._jobs.pop(ready[0])
        try:
            made: Made = self._ray.get(ready[0])
            return job, made
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            return job, cause if isinstance(cause, NacreError) else _fault(job, cause)
        except self._ray.exceptions.RayError:  # its worker or node is gone
            return job, None

    def close(self, interrupted: bool) -> None:
        """Give up what is under way, and leave the cluster, or end it if it was started here."""
        for task in self._jobs:
            self._ray.cancel(task, force=True)
        self._ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will do some day
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UsageError("Ray is not installed; pip install 'nacre[ray]', or leave out --engine ray") from error
    return ray


def _connect(ray: Any, jobs: int | None, address: str | None) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if ray.is_initialized():
        return
    named = address or os.environ.get("RAY_ADDRESS")
    if not named:
        store_bytes = 80 << 20  # the least that Ray takes: shards go to files, not through its store
        address = "local"  # not a cluster that happens to run on this machine
        settings |= {"num_cpus": jobs or cpus(), "include_dashboard": False, "object_store_memory": store_bytes}
    try:
        ray.init(address=address, **settings)
    except Exception as error:  # Ray has no class of its own for this
        told = (str(error) or repr(error)).splitlines()[0]
        advice = "is a cluster there?" if named else "is there memory for it?"
        raise UsageError(f"Ray does not run at {named or 'this machine'}: {told}; {advice}") from error
