"""Tokens and latents of files with their gains, and sound made of them: (source, target, options) -> Result."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from nacre.batch.coded import codec_of, is_coded, open_coded, report_damage
from nacre.batch.messages import warn
from nacre.batch.report import Result
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import AudioError, StreamError, UsageError, reason
from nacre.core.units import clock

if TYPE_CHECKING:
    from nacre.codec.latents import Latents
    from nacre.codec.tokens import Tokens

ARRAYS = frozenset({".npz"})


def tokens_file(
    source: str,
    target: str,
    latents: bool,
    level: int | None,
    mono: bool,
    model: str | None,
    force: bool,
    tick: Callable[[float], None],
) -> Result:
    """Tokens or latents of a sound file, or of a `.nacre` file the tokens that it holds, to an npz."""
    frames, error = (_of_coded if is_coded(source) else _of_sound)(source, latents, level, mono, model)
    frames.save(target, force)
    tick(1.0)
    seconds = frames.samples / frames.rate_hz
    text = f"{source}: {frames.VALUES} {list(frames.shape)}, {frames.gains.shape[-1]} groups, {clock(seconds)}"
    return Result(text, seconds, error=error, kept=True)


def sound_file(
    source: str, target: str, rate_hz: int | None, model: str | None, force: bool, tick: Callable[[float], None]
) -> Result:
    """Sound of an npz that holds tokens or latents."""
    from nacre.io.audio import AudioWriter
    from nacre.model import bundle as bundles

    frames, started = _opened(source), time.perf_counter()
    if model is None:
        inside = bundles.by_fingerprint(bytes.fromhex(frames.fingerprint))
        if inside is None:
            by = f"was written by model {frames.fingerprint}, which this package lacks"
            raise StreamError(f"{source} {by}; give the model's folder with --model")
        model = inside.name
    codec = codec_of(model)
    try:
        stream = codec.decoder_of(frames, rate_hz)
    except UsageError as error:
        raise StreamError(f"{source}: {error}") from error
    done = 0
    with AudioWriter(target, stream.rate_hz, frames.channels, overwrite=force) as writer:
        for block in stream.blocks():
            writer.write(block)
            done += block.shape[1]
            tick(done / stream.samples)
    seconds = done / stream.rate_hz
    pace = seconds / max(1e-9, time.perf_counter() - started)
    lacks = f"{source} was made from a damaged file: {frames.lost} groups are lost; the gaps were concealed"
    lost = StreamError(lacks) if frames.lost else None
    return Result(f"{source}: {clock(seconds)}  {pace:.0f} x real time", seconds, error=lost, kept=True)


def _of_sound(
    source: str, latents: bool, level: int | None, mono: bool, model: str | None
) -> tuple[Tokens | Latents, AudioError | None]:
    from nacre.io.audio import read_with_facts

    sound, codec = read_with_facts(source), codec_of(model or DEFAULT_MODEL)
    for note in sound.notes:
        warn(f"warning: {note}")
    work = codec.latents if latents else codec.tokens
    try:
        return work(sound.wave, sound.rate_hz, level, mono=mono), sound.loss
    except AudioError as error:
        raise AudioError(f"{source}: {error}") from error


def _of_coded(
    source: str, latents: bool, level: int | None, mono: bool, model: str | None
) -> tuple[Tokens, StreamError | None]:
    contents, codec = open_coded(source, model)
    if latents or level is not None or (mono and contents.header.channels > 1):
        change = "leave out --latents" if latents else "use --no-mono" if level is None else "leave out --level"
        raise UsageError(f"{source} is a .nacre file, whose tokens can only be taken as they are; {change}")
    if contents.header.band:
        warn(f"warning: {source}: the tokens leave out its band layer, the sound above 8 kHz")
    tokens = codec.tokens_in(contents)
    if not tokens.lost and not contents.truncated:
        return tokens, None
    report_damage(source, [], contents)
    lost = f"{tokens.lost} groups are lost" if tokens.lost else "its end is missing"
    return tokens, StreamError(f"{source} is damaged: {lost}; see `nacre verify`")


def _opened(source: str) -> Tokens | Latents:
    """Tokens or latents, whichever a file holds."""
    from nacre.codec.latents import Latents
    from nacre.codec.tokens import Tokens

    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
    except OSError as error:
        raise StreamError(f"{source} cannot be read ({reason(error)}); check its name and permissions") from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise StreamError(f"{source} is not an .npz file; give one that `nacre tokens` wrote") from error
    return Latents.load(source) if f"{Latents.VALUES}.npy" in names else Tokens.load(source)
