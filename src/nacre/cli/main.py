"""The entry point: every known error ends in one line and its exit code, never in a traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
from copy import copy
from importlib import import_module

import typer
from typer.models import CommandInfo

from nacre.batch.messages import complain, tell
from nacre.cli.app import app
from nacre.core.errors import NacreError, reason

INTERRUPTED = 130  # exit code
MODULES = ("codec", "frames", "tools", "live", "evaluation", "corpus", "training")  # that add commands to the app


def _hold_standard_files() -> None:
    """No other file may get the number of a standard one that is closed; names in any encoding can be printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def application(words: list[str]) -> typer.Typer:
    """All commands, or the one that the only word names: the others and their options would take 60 ms."""
    for module in MODULES:
        import_module(f"nacre.cli.{module}")
        if named := [info for info in app.registered_commands if [_name_of(info)] == words]:
            alone = copy(app)
            alone.registered_commands, alone.registered_groups = named, []
            return alone
    return app


def _name_of(info: CommandInfo) -> str:
    return info.name or getattr(info.callback, "__name__", "").replace("_", "-")


_STOPPED: list[int] = []  # signals received, since a library may turn the exception they raise into another


def _end(number: int, frame: object) -> None:
    """Stop, so that no half a file stays behind; a second Ctrl-C ends the process at once."""
    _STOPPED.append(number)
    if number == signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _catch_signals() -> None:
    _STOPPED.clear()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _end)


def main() -> None:
    """Entry point: every known error ends in one line and its exit code, never in a traceback."""
    reported = False
    _hold_standard_files()
    _catch_signals()
    try:
        try:
            application(sys.argv[1:2])()
        except SystemExit as end:
            reported = bool(end.code)
            raise
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk can still be reported
    except BaseException as error:
        sys.exit(_exit_code(error, reported))


def _exit_code(error: BaseException, reported: bool) -> int:
    """The exit code of a command that `error` ended, which is reported unless it is already, as by typer."""
    if (isinstance(error, SystemExit) and error.code == INTERRUPTED) or isinstance(error, KeyboardInterrupt):
        _STOPPED.append(signal.SIGINT)
    if _STOPPED:
        tell("stopped")
        return 128 + _STOPPED[0]
    if isinstance(error, NacreError):
        complain(error)
        return error.exit_code
    if isinstance(error, OSError):
        if not reported and not isinstance(error, BrokenPipeError):
            failed = f"{error.filename} cannot be read or written" if error.filename else "the output cannot be written"
            complain(f"{failed} ({reason(error)}); check the disk and its permissions")
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    raise error
