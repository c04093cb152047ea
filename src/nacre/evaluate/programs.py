"""Other people's programs: run to the end, watched, their processor time taken."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from nacre.core.errors import NacreError

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
        raise PeerError(words[0], found=f"no end after {limit_s:.0f} s") from error
    except OSError as error:
        raise PeerError(words[0], found=error.strerror, wanted="a program that can be run") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:]
        raise PeerError(words[0], found=f"exit code {done.returncode}" + "".join(f", {line[:200]}" for line in last))
    if not target.is_file() or target.stat().st_size == 0:
        raise PeerError(words[0], found="nothing written", wanted=target.name)
    return children_cpu_s() - start_s


def peak_mb(words: list[str], target: Path, limit_s: float) -> float:
    """Run to the end; gives the most memory that the program held, with all those it started. Raises PeerError.

    Looked at again and again while it runs: the system's own figure for an ended child has this process's size as its
    floor. 0 where the system tells nothing.
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
        raise PeerError(words[0], found=f"exit code {process.returncode}", wanted=target.name)
    return most_kb * 1024 / 1e6


def _tree_kb(pid: int) -> int:
    """Most memory of a process so far, and of those it started that still run; kB, 0 where this is not told."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text().splitlines()
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except OSError:  # it has just ended
        return 0
    own_kb = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return own_kb + sum(_tree_kb(int(child)) for child in children)


def children_cpu_s() -> float:
    """Processor seconds of all programs run from this process so far; where that is not told, wall seconds."""
    if os.name != "posix":
        return time.perf_counter()
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_thread() -> dict[str, str]:
    """This environment, with libraries told to use one thread."""
    return os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
