"""Which files of a folder are sound, by their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nacre.core.errors import AudioError, reason

SOUND = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd"})
SOUND |= {".caf", ".w64", ".rf64", ".bw64", ".bwf", ".voc", ".spx"}
FILMS = frozenset({".m4a", ".m4b", ".aac", ".wma", ".amr", ".awb", ".3gp", ".webm", ".mkv", ".mka", ".mp4", ".mov"})
FILMS |= {".avi", ".ac3", ".mp2", ".ape", ".wv", ".ogv", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv"}
ANY_SOUND = SOUND | FILMS


def inside(folder: str | Path, kinds: frozenset[str] = ANY_SOUND) -> Iterator[str]:
    """Paths of a tree's files with these suffixes, in the order of their names.

    Links to folders are followed, but no folder is entered twice; hidden files and folders are left out. Raises
    AudioError for a folder that cannot be read.
    """
    entered: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        state = os.stat(here)
        if (state.st_dev, state.st_ino) in entered:
            folders.clear()
            continue
        entered.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(here, name)
            if not name.startswith(".") and Path(name).suffix.lower() in kinds and os.path.isfile(path):
                yield path


def _unreadable(error: OSError) -> None:
    raise AudioError(f"folder {error.filename} cannot be read ({reason(error)}); check its permissions") from error
