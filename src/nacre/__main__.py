"""`python -m nacre` is `nacre`; Ctrl-C while modules are still being imported ends in a word, too."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """The command line. Exit code 130 where it is stopped before it has begun."""
    try:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)
        from nacre.cli.main import main as run
    except KeyboardInterrupt:  # while `signal` itself was being imported
        _leave(2)

    try:
        run()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done: nothing of Python's own end is told of


def _leave(number: int, frame: object = None) -> NoReturn:
    """End at once: nothing is written yet, and an exception might be lost or changed by what is being imported."""
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
