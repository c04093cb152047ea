"""Errors a user may meet. Each is one sentence: what happened, what is there, what was wanted and what to do."""

from __future__ import annotations


class NacreError(Exception):
    """Base of every error nacre raises on purpose.

    >>> print(NacreError("talk.wav", found="text", wanted="audio", next="convert it first"))
    talk.wav: found text, wanted audio; convert it first
    """

    exit_code = 1

    def __init__(self, what: str, *, found: object = None, wanted: object = None, next: str = ""):
        if isinstance(found, OSError) and found.strerror:
            found = found.strerror  # without its number and the name, which `what` has
        facts = [f"{name} {value}" for name, value in (("found", found), ("wanted", wanted)) if value is not None]
        message = what + (": " + ", ".join(facts) if facts else "") + (f"; {next}" if next else "")
        super().__init__(message)


class UsageError(NacreError):
    """An option or argument that cannot be meant as given."""

    exit_code = 2


class AudioError(NacreError):
    """Sound that cannot be read, written or coded."""


class BundleError(NacreError):
    """A model folder that is missing, damaged or of another kind."""


class StreamError(NacreError):
    """A `.nacre` file or packet that cannot be decoded."""


class TrainError(NacreError):
    """A recipe, data folder or run that cannot go on."""


def reason(error: Exception) -> str:
    """The words of an error; of the system's own without the number and the file's name.

    >>> reason(IsADirectoryError(21, "Is a directory", "talk.wav"))
    'Is a directory'
    """
    return getattr(error, "strerror", None) or str(error)
