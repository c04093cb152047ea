"""Errors a user may meet. Each is one sentence: what happened, what is there, what was wanted and what to do."""

from __future__ import annotations


class NacreError(Exception):
    """Base of every error nacre raises on purpose: one sentence, without a full stop.

    >>> print(NacreError("talk.wav is a folder; give a file, or use --recursive"))
    talk.wav is a folder; give a file, or use --recursive
    """

    exit_code = 1

    def __init__(self, sentence: str):
        super().__init__(sentence)


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
