"""Files that appear whole, under a passing name until they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nacre.core.errors import AudioError, reason
from nacre.io.stdio import standard_output

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Name = str | Path
PASSING = ".nacre-*.part"


@contextmanager
def output_file(target: Name, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A file under a passing name, renamed `target` if the `with` ends well, else removed; "-" is stdout."""
    path = Path(os.path.realpath(target))
    part = path.with_name(f".nacre-{os.urandom(6).hex()}.part")
    try:
        if str(target) == "-":
            yield standard_output()
            standard_output().flush()
        elif path.is_char_device() or path.is_fifo():  # written, never replaced
            with open(path, "wb") as file:
                yield file
        else:
            check_free(target, overwrite)
            _sweep(path.parent)
            with _held(part) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power cut might leave the name, and nothing in it
                check_free(target, overwrite)  # another process may have been quicker
                if fcntl is not None:
                    os.replace(part, path)  # while it is marked, or another process may sweep it away
            if fcntl is None:  # Windows renames no open file
                os.replace(part, path)
    except OSError as error:
        if error.filename not in (None, str(part), str(path)):  # another file's error
            raise
        advice = "choose a folder that exists, may be written and has room"
        raise AudioError(f"{target} cannot be written ({reason(error)}); {advice}") from error
    finally:
        with suppress(OSError):
            part.unlink()


_swept: set[Path] = set()


def _held(path: Path) -> BinaryIO:
    """A new file, marked as being written for as long as it is open."""
    while True:
        file = open(path, "xb")  # noqa: SIM115 - the caller closes it
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)  # waits for who sweeps it away just now
        if os.path.exists(path):
            return file
        file.close()  # swept away before it was marked


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half written in a folder, once in each process."""
    if fcntl is None or folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for path in folder.glob(PASSING):
            with suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while somebody writes
                path.unlink()


def check_free(target: Name, overwrite: bool) -> None:
    """Raise AudioError for a target that is a folder, or a file that may not be replaced."""
    path = Path(os.path.realpath(target))
    if path.is_dir():
        raise AudioError(f"{target} is a folder; name a file, such as {Path(target) / 'out.wav'}")
    if path.exists() and not overwrite:
        raise AudioError(f"{target} exists already; choose a new name, or use --force to replace it")
