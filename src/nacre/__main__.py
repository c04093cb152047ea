"""`python -m nacre` is `nacre`; Ctrl-C while modules are still being imported ends in a word, too."""

import sys


def main() -> None:
    """The command line. Exit code 130 where it is stopped before it has begun."""
    try:
        from nacre.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
