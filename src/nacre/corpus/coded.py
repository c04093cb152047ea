"""`.nacre` files as recordings, single or in a corpus that was encoded: their symbols as they stand, or their sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nacre.batch.coded import codec_of, open_data
from nacre.core.errors import AudioError, StreamError, UsageError
from nacre.core.types import Array
from nacre.corpus.columns import Column
from nacre.corpus.recordings import InCorpus, Unreadable
from nacre.corpus.sources import Found, Source, Wanted, check_kept
from nacre.format.file import unpack_header

if TYPE_CHECKING:
    from nacre.codec.codec import Codec
    from nacre.codec.tokens import Tokens

SOUND = "nacre"  # the column of files


class CodedSound:
    """A file of `model`, or of a model of this package. Raises StreamError."""

    def __init__(self, name: str, data: bytes, model: str):
        mine = bool(model) and unpack_header(data).fingerprint in codec_of(model).bundle.fingerprints
        self.name, self._lost = name, 0
        self._contents, self._codec = open_data(name, data, model if mine else None)
        self.rate_hz, self.channels = self._contents.header.rate_hz, self._contents.header.channels

    def tokens(self, codec: Codec) -> Tokens:
        """What it holds, without making sound of it. Raises StreamError for a file of another model."""
        if self._codec is not codec:
            advice = "name that model with --model, or decode the file first"
            raise StreamError(f"{self.name} has tokens of another model, {self._codec.model.name}; {advice}")
        tokens = codec.tokens_in(self._contents)
        self._lost = tokens.lost
        return tokens

    def blocks(self, block_samples: int) -> Iterator[Array]:
        """The sound that it decodes to, in blocks of its own size."""
        stream = self._codec.decoder(self._contents)
        yield from (block for block in stream.blocks() if block.shape[1])
        self._lost = len(stream.damage)

    def loss(self) -> AudioError | None:
        """What of it is damaged."""
        if self._contents.truncated:
            return AudioError(f"{self.name} is cut short")
        return AudioError(f"{self.name} has lost {self._lost} groups") if self._lost else None


def corpus(path: str, wanted: Wanted) -> Source:
    """The recordings of a destination of `nacre corpus encode`, with the keys that they had. Raises UsageError."""
    from nacre.corpus.reading import Corpus

    shards = Corpus(path)
    if (what := shards.facts["what"]) != "encode":
        raise UsageError(f"{path} holds {what}, from which nothing else is made; give what `nacre corpus encode` wrote")
    columns = {column.name: column for column in shards.columns if not column.is_array}
    key = wanted.key or "key"
    check_kept(path, list(columns), (*wanted.keep, key))

    def read() -> Iterator[Found]:
        rows = Corpus(path, [key, *wanted.keep])
        at = 0
        for shard, record in enumerate(rows.records):
            weight = record.payload_bytes // max(1, record.rows)
            try:
                for index, values in enumerate(rows.rows(shard), at):
                    yield Found(str(values[key]), InCorpus(path, index), weight, values)
            except StreamError as error:
                yield Found(f"{record.file}#end", Unreadable(str(error)))
            at += record.rows

    return Source("corpus", path, {name: _type(columns[name]) for name in wanted.keep}, read)


def _type(column: Column) -> str:
    """How a column is kept."""
    return "int64" if column.dtype.startswith("int") else column.dtype
