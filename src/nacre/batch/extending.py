"""`nacre extend` of one file: blocks of sound, or of what a `.nacre` file decodes to, go through one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nacre.batch.coded import is_coded, missing, open_coded, report_damage
from nacre.batch.messages import warn
from nacre.batch.report import Result
from nacre.core.errors import NacreError, StreamError
from nacre.core.units import clock

if TYPE_CHECKING:
    from nacre.core.types import Array


@dataclass(frozen=True)
class _Opened:
    """Blocks [C, N] of a sound, `samples` in all where that is known; `ended`, called after them, gives the error."""

    rate_hz: int
    channels: int
    samples: int | None
    blocks: Iterator[Array]
    ended: Callable[[], NacreError | None]


def extend_file(source: str, target: str, model: str | None, force: bool, tick: Callable[[float], None]) -> Result:
    """A sound with what it lacks above 8 kHz, as a guess."""
    from nacre.io.audio import AudioWriter
    from nacre.tools.extend import extended, rate_out

    started, written = time.perf_counter(), 0
    with (_coded if is_coded(source) else _sound)(source, model) as opened:
        rate_hz = rate_out(opened.rate_hz)
        with AudioWriter(target, rate_hz, opened.channels, overwrite=force) as writer:
            for block in extended(opened.blocks, opened.rate_hz, opened.channels):
                writer.write(block)
                written += block.shape[1]
                tick(min(1.0, written * opened.rate_hz / (opened.samples * rate_hz)) if opened.samples else 0)
        error = opened.ended()
    seconds = written / rate_hz
    pace = seconds / max(1e-9, time.perf_counter() - started)
    text = f"{source}: {clock(seconds)} extended to 20 kHz, at {rate_hz} Hz  {pace:.0f} x real time"
    return Result(text, seconds, error=error, kept=True)


@contextmanager
def _coded(source: str, model: str | None) -> Iterator[_Opened]:
    contents, codec = open_coded(source, model)
    if contents.header.band:
        raise StreamError(f"{source} already has a band layer above 8 kHz; use `nacre decode` instead")
    stream: Any = codec.decoder(contents)

    def ended() -> NacreError | None:
        report_damage(source, stream.damage, contents)
        if lost := len(stream.damage) + contents.missing:
            return StreamError(f"{source} is damaged: {lost} groups are lost; the gaps were concealed")
        return StreamError(f"{source} is cut short: {missing(contents)}") if contents.truncated else None

    yield _Opened(stream.rate_hz, contents.header.channels, stream.samples, stream.blocks(), ended)


@contextmanager
def _sound(source: str, model: str | None) -> Iterator[_Opened]:
    from nacre.io.audio import AudioReader

    with AudioReader(source) as reader:

        def ended() -> NacreError | None:
            for note in reader.notes:
                warn(f"warning: {note}")
            return reader.loss()

        yield _Opened(reader.rate_hz, reader.channels, reader.samples, reader.blocks(reader.rate_hz), ended)
