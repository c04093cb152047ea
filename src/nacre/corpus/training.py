"""Sources as `nacre train` reads them: folders of sound files by itself, all others through the readers of corpora."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nacre.core.errors import AudioError, NacreError, reason
from nacre.core.types import Array
from nacre.corpus.opening import Opener
from nacre.corpus.recordings import Recording
from nacre.corpus.sources import Source, Wanted, open_source
from nacre.io.audio import mono_blocks
from nacre.io.folders import inside


@dataclass(frozen=True)
class SourceRecordings:
    """The recordings of a source, one after another."""

    source: Source

    @property
    def name(self) -> str:
        """Of the source in training, which draws from all of them by their sizes."""
        return os.path.basename(self.source.path)

    def listed(self) -> Iterator[list[Any]]:
        """Key, size and place of each."""
        for item in self.source.recordings():
            yield [item.key, item.size_bytes, repr(item.place)]

    def read(self, rate_hz: int) -> Iterator[Callable[[], Iterator[Array]]]:
        """What gives each in blocks [N] at this rate, channels averaged; to be read before the next."""
        with Opener() as opener:
            for recording in self.source.recordings():
                yield partial(self._blocks, opener, recording, rate_hz)

    def _blocks(self, opener: Opener, recording: Recording, rate_hz: int) -> Iterator[Array]:
        try:
            with opener.open(recording) as sound:
                yield from mono_blocks(sound, rate_hz)
        except (NacreError, OSError) as error:
            raise AudioError(f"{self.source.path}, {recording.where}: {reason(error)}") from error


def training_data(path: Path) -> Path | SourceRecordings:
    """A folder that has sound files, or nothing, as it is; else the source that it is. Raises UsageError."""
    folder = path.is_dir()
    if not path.exists() or (folder and any(True for _ in inside(path))):
        return path
    source = open_source(os.path.abspath(path), Wanted())
    return SourceRecordings(source) if not folder or any(True for _ in source.read()) else path
