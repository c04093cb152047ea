"""Other people's programs: run to the end, with their processor time and memory measured."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from nacre.core.errors import NacreError, reason

LOOK_S = 5e-4  # between two looks at a program's memory


class PeerError(NacreError):
    """A codec that crashed or returned something else than the sound."""


def run_command(words: list[str], target: Path, limit_s: float) -> float:
    """Run to the end; gives its processor time. Raises PeerError unless it succeeds and leaves `target`."""
    start_s = children_cpu_s()
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False, env=one_thread()
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{words[0]} was stopped: it had not ended after {limit_s:.0f} s") from error
    except OSError as error:
        raise PeerError(f"{words[0]} cannot be run ({reason(error)}); check its path and permissions") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:]
        raise PeerError(f"{words[0]} failed with exit code {done.returncode}" + "".join(f": {x[:200]}" for x in last))
    if not target.is_file() or target.stat().st_size == 0:
        raise PeerError(f"{words[0]} ended without writing {target.name}")
    return children_cpu_s() - start_s


def peak_mb(words: list[str], target: Path, limit_s: float) -> float:
    """Run to the end; gives the most memory that the program held, with all those it started. Raises PeerError.

    It is polled while it runs: the system's own figure for an ended child has this process's size as its floor. 0 where
    the system has no such figure.
    """
    end_s = time.monotonic() + limit_s
    most_kb = 0
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=one_thread()
    ) as process:
        while process.poll() is None:
            most_kb = max(most_kb, _tree_kb(process.pid))
            if time.monotonic() > end_s:
                process.kill()
            time.sleep(LOOK_S)
    if process.returncode != 0 or not target.is_file():
        raise PeerError(f"{words[0]} ended with exit code {process.returncode}, without a whole {target.name}")
    return most_kb * 1024 / 1e6


def _tree_kb(pid: int) -> int:
    """Peak memory in kB of a process so far, and of those it started that still run; 0 where it is unknown."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text().splitlines()
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except OSError:  # it has just ended
        return 0
    own_kb = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return own_kb + sum(_tree_kb(int(child)) for child in children)


def children_cpu_s() -> float:
    """Processor seconds of all programs run from this process so far; where they are unknown, wall seconds."""
    if os.name != "posix":
        return time.perf_counter()
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_thread() -> dict[str, str]:
    """This environment, with libraries limited to one thread."""
    return os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
