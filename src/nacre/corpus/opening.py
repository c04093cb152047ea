"""The sound of recordings, one after another: files, parts of files, members of tars, cells of tables."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nacre.batch.coded import read_coded
from nacre.batch.sources import CODED
from nacre.core.errors import AudioError
from nacre.core.kinds import MAGIC
from nacre.core.types import Array
from nacre.corpus import tables
from nacre.corpus.coded import SOUND, CodedSound
from nacre.corpus.columns import Row
from nacre.corpus.reading import Corpus
from nacre.corpus.recordings import InCorpus, InFile, InTable, InTar, Recording, Unreadable
from nacre.dsp.wave import check_shape
from nacre.io.audio import AudioReader
from nacre.io.reader import check_finite

if TYPE_CHECKING:
    from nacre.codec.codec import Codec
    from nacre.codec.tokens import Tokens

SLACK_S = 0.025  # what a part may lack at the end of its file: manifests round


class Sound(Protocol):
    """What can be coded: blocks float32 [C, N] at a rate, and afterwards what of it is missing."""

    rate_hz: int
    channels: int

    def blocks(self, block_samples: int) -> Iterator[Array]:
        """Blocks to the end."""
        ...

    def loss(self) -> AudioError | None:
        """What was not given, when all is read."""
        ...


class Counted:
    """A sound that knows how much of it was read."""

    def __init__(self, sound: Sound):
        self._sound, self.rate_hz, self.channels, self.samples = sound, sound.rate_hz, sound.channels, 0

    def blocks(self, block_samples: int) -> Iterator[Array]:
        """The sound's own."""
        for block in self._sound.blocks(block_samples):
            self.samples += block.shape[1]
            yield block

    def tokens(self, codec: Codec) -> Tokens | None:
        """Those that a `.nacre` file of one channel holds, without residual layer; None for all other sound.

        Raises StreamError.
        """
        if not isinstance(self._sound, CodedSound) or self.channels > 1:
            return None
        tokens = self._sound.tokens(codec)
        if tokens.fine is not None:
            return None
        self.samples = tokens.samples
        return tokens

    def facts(self, recording: Recording) -> Row:
        """Cells of FACTS."""
        return {
            "row": recording.row,
            "key": recording.key,
            "rate_hz": self.rate_hz,
            "channels": self.channels,
            "samples": self.samples,
            "duration_s": self.samples / self.rate_hz,
        }


class Opener:
    """Opens recordings in turn, for use in a `with`. Parts of one file, in order, are read in one pass.

    `model` is tried first for `.nacre` files.
    """

    def __init__(self, model: str = ""):
        self._model = model

    def __enter__(self) -> Opener:
        self._stack = ExitStack()
        self._spool = self._stack.enter_context(tempfile.NamedTemporaryFile(prefix="nacre-"))
        self._reader: AudioReader | None = None
        self._cells: tables.Cells | None = None
        self._corpus: Corpus | None = None
        return self

    def __exit__(self, *exc: object) -> None:
        self._close_part()
        self._stack.close()

    @contextmanager
    def open(self, recording: Recording) -> Iterator[Sound]:
        """The sound of a recording. Raises AudioError."""
        place = recording.place
        if isinstance(place, Unreadable):
            raise AudioError(place.reason)
        if isinstance(place, InFile):
            if place.is_part:
                yield _Part(self._reader_before(place), place)
            else:
                with self._file(place.path) as sound:
                    yield sound
            return
        data = self._data(place)
        if isinstance(data, tuple):
            yield _Samples(data[0], data[1], recording.key)
        elif isinstance(data, str):
            with self._file(data) as sound:
                yield sound
        elif data.startswith(MAGIC):
            yield CodedSound(recording.key, data, self._model)
        else:
            with self._spooled(data, recording.key) as reader:
                yield reader

    def _file(self, path: str) -> AudioReader | nullcontext[CodedSound]:
        if Path(path).suffix.lower() in CODED:
            return nullcontext(CodedSound(path, read_coded(path), self._model))
        return AudioReader(path)

    def _data(self, place: InTar | InTable | InCorpus) -> bytes | str | tuple[Array, int]:
        """Bytes of a file, its path, or a wave [C, N] and its rate."""
        if isinstance(place, InTable):
            return self._cell(place)
        if isinstance(place, InCorpus):
            if self._corpus is None:
                self._corpus = Corpus(place.path, [SOUND])
            file: bytes = self._corpus[place.row][SOUND]
            return file
        with open(place.path, "rb") as tar:
            tar.seek(place.offset)
            return tar.read(place.size_bytes)

    def _spooled(self, data: bytes, name: str) -> AudioReader:
        self._spool.seek(0)
        self._spool.truncate()
        self._spool.write(data)
        self._spool.flush()
        return AudioReader(self._spool.name, name=name)

    def _cell(self, place: InTable) -> bytes | str | tuple[Array, int]:
        cells = self._cells
        if cells is None or cells.at != (place.path, place.block, place.column) or cells.next > place.index:
            cells = self._cells = tables.Cells(place)
        return tables.sound_of_cell(*cells.take(place.index))

    def _reader_before(self, place: InFile) -> AudioReader:
        """A reader of the part's file that has not passed its start."""
        reader = self._reader
        if reader is None or reader.name != place.path or reader.samples_read > round(place.start_s * reader.rate_hz):
            self._close_part()
            reader = AudioReader(place.path).__enter__()
        self._reader = reader
        return reader

    def _close_part(self) -> None:
        if self._reader is not None:
            self._reader.__exit__(None, None, None)
            self._reader = None


class _Part:
    """From a start, for a duration, some channels of what a reader holds."""

    def __init__(self, reader: AudioReader, place: InFile):
        self._reader, self._place, self.rate_hz = reader, place, reader.rate_hz
        self._picked = list(place.channels) or list(range(reader.channels))
        if max(self._picked) >= reader.channels or min(self._picked) < 0:
            raise AudioError(f"{place.path} has {reader.channels} channels, and no channels {self._picked}")
        self.channels = len(self._picked)
        self._start = round(place.start_s * self.rate_hz)
        self._stop = 1 << 62
        if place.duration_s is not None:
            self._stop = round((place.start_s + place.duration_s) * self.rate_hz)
        if self._stop <= self._start:
            raise AudioError(f"the part of {place.path} has no length; its duration must be above 0")

    def blocks(self, block_samples: int) -> Iterator[Array]:
        """Its blocks; what lies before it is passed over."""
        reader, given = self._reader, 0
        while reader.samples_read < self._stop:
            ahead = self._start - reader.samples_read
            size = min(block_samples, ahead if ahead > 0 else self._stop - reader.samples_read)
            block = next(reader.blocks(size), None)
            if block is None:
                break
            if ahead <= 0:
                given += block.shape[1]
                yield block[self._picked]
        if not given:
            end_s = reader.samples_read / self.rate_hz
            raise AudioError(f"{self._place.path} ends at {end_s:.3f} s, before its part at {self._place.start_s:g} s")

    def loss(self) -> AudioError | None:
        """What lacks at its end; of the rest of the file nothing is said."""
        lacks_s = (self._stop - self._reader.samples_read) / self.rate_hz
        if self._stop == 1 << 62 or lacks_s <= SLACK_S:
            return None
        return AudioError(f"{self._place.path} ends {lacks_s:.3f} s before the manifest says")


class _Samples:
    """A wave [C, N] that a table holds."""

    def __init__(self, wave: Array, rate_hz: int, name: str):
        self._wave, self.channels = wave, len(wave)
        self.rate_hz = check_shape(rate_hz, len(wave))
        if wave.shape[1] == 0:
            raise AudioError(f"{name} has no samples")
        check_finite(name, wave, 0, rate_hz)

    def blocks(self, block_samples: int) -> Iterator[Array]:
        """Its blocks."""
        for at in range(0, self._wave.shape[1], block_samples):
            yield self._wave[:, at : at + block_samples]

    def loss(self) -> AudioError | None:
        """Nothing is missing."""
        return None
