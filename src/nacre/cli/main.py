"""The entry point: every known error ends in one line and its exit code, never in a traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
from copy import copy

import typer
from typer.models import CommandInfo

from nacre.batch.messages import complain, tell
from nacre.cli import (  # noqa: F401 - they add their commands to the app
    codec,
    corpus,
    evaluation,
    frames,
    live,
    tools,
    training,
)
from nacre.cli.app import app
from nacre.core.errors import NacreError

INTERRUPTED = 130  # exit code


def _hold_standard_files() -> None:
    """No other file may get the number of a standard one that is closed; names in any encoding can be printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _app_for(words: list[str]) -> typer.Typer:
    """The application with one command, where that is named: typer would spend 40 ms on the options of the others."""
    named = [info for info in app.registered_commands if [_name_of(info)] == words]
    if not named:
        return app
    alone = copy(app)
    alone.registered_commands, alone.registered_groups = named, []
    return alone


def _name_of(info: CommandInfo) -> str:
    return info.name or getattr(info.callback, "__name__", "").replace("_", "-")


def _end(number: int, frame: object) -> None:
    """Stop as by Ctrl-C, so that no half a file stays behind."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point: every known error ends in one line and its exit code, never in a traceback."""
    reported = False
    _hold_standard_files()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    try:
        try:
            _app_for(sys.argv[1:2])()
        except SystemExit as end:
            reported = bool(end.code)
            if end.code in (INTERRUPTED, 128 + signal.SIGTERM):
                tell("stopped")
            raise
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk can still be reported
    except NacreError as error:
        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        tell("stopped")
        sys.exit(INTERRUPTED)
    except OSError as error:
        if not reported and not isinstance(error, BrokenPipeError):
            complain(f"{error.filename or 'output'}: {error.strerror}")
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
