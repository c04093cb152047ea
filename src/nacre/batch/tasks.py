"""What the commands do with one file each: (source, target, options) -> Result."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from nacre.batch.choice import AUTO, listened, suiting
from nacre.batch.coded import codec_of, file_codec_of, is_coded, missing, open_all, open_coded, report_damage
from nacre.batch.messages import warn
from nacre.batch.report import Result
from nacre.batch.run import check_apart
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import AudioError, NacreError, StreamError, UsageError, reason
from nacre.core.units import clock, kbps

if TYPE_CHECKING:
    from nacre.io.audio import Recording

PAUSE_S = 0.3  # between the steps of an interpolation in one file


def encode_file(
    source: str,
    target: str,
    settings: dict[str, Any],
    model: str,
    force: bool,
    tick: Callable[[float], None],
    raw: str | None = None,
) -> Result:
    """Sound to a `.nacre` file; of a recording that is cut off all that there is, and the error in the result."""
    from nacre.format.file import Writer
    from nacre.format.tags import pack_tags
    from nacre.io.audio import FORMATS, AudioReader, output_file
    from nacre.io.raw import Raw

    if (suffix := Path(target).suffix.lower()) in FORMATS:
        raise UsageError(f"{target} ends in {suffix}, but `nacre encode` writes .nacre files; rename the output")
    started = time.perf_counter()
    with AudioReader(source, Raw.parse(raw) if raw is not None else None) as reader:
        blocks = reader.blocks(reader.rate_hz)
        if model in (AUTO, DEFAULT_MODEL):
            music, blocks = listened(blocks, reader.rate_hz)
            chosen = suiting(music, settings, reader.channels)
            _tell_choice(source, model, chosen)
            model = chosen if model == AUTO else model
        stream = file_codec_of(model).encoder(reader.rate_hz, reader.channels, **settings)
        with output_file(target, force) as file:
            counted = _Counted(file)
            writer = Writer(cast("BinaryIO", counted), stream.header)
            for block in blocks:
                for packet in stream.push(block):
                    writer.add(packet)
                tick(stream.samples / reader.samples if reader.samples else 0)
            for packet in stream.flush():
                writer.add(packet)
            writer.finish(stream.samples)
            if reader.tags:
                counted.write(pack_tags(reader.tags, modified_s(source)))
    keep_time(source, target)
    duration_s = stream.samples / reader.rate_hz
    _note(reader.notes)
    text = _summary(source, duration_s, counted.size_bytes, started)
    return Result(text, duration_s, bytes_out=counted.size_bytes, error=reader.loss(), kept=True)


def _tell_choice(source: str, requested: str, suiting: str) -> None:
    """Print which model was chosen, or that another one suits better."""
    if requested == AUTO:
        warn(f"{source}: encoded with {suiting}, which suits how it sounds")
    elif suiting != requested:
        warn(f"{source} sounds like music; {suiting} codes that better, use --model auto")


def decode_file(
    source: str,
    target: str,
    rate_hz: int | None,
    model: str | None,
    force: bool,
    tick: Callable[[float], None],
    raw: bool = False,
) -> Result:
    """A `.nacre` file to sound; of a damaged one all that there is, and the error in the result."""
    from nacre.io.audio import AudioWriter

    files = open_all(source, model)
    started = time.perf_counter()
    streams = [codec.decoder(contents, rate_hz) for contents, codec in files]
    shape = streams[0].rate_hz, streams[0].header.channels
    alike = [stream for stream in streams if (stream.rate_hz, stream.header.channels) == shape]
    samples, written, lost, groups = sum(stream.samples for stream in alike), 0, 0, 0
    ended = all(not stream.contents.truncated for stream in alike)
    tags = files[0][0].tags
    with AudioWriter(target, *shape, overwrite=force, tags=tags, raw=raw) as writer:
        for stream in alike:
            start_s = written / shape[0]
            for block in stream.blocks():
                writer.write(block)
                written += block.shape[1]
                tick(written / max(1, samples))
            report_damage(source, stream.damage, stream.contents, start_s)
            lost += len(stream.damage) + stream.contents.missing
            groups += len(stream.contents.packets) + stream.contents.missing
    keep_time(source, target, files[0][0].modified_s)
    kept = f"{clock(written / shape[0])} of sound was written"
    size_bytes, error = sum(contents.size_bytes for contents, _ in files), None
    if lost or not ended:
        damage = f"{lost} of {groups} groups are lost" if lost else "its end is missing"
        error = StreamError(f"{source} is damaged: {damage}; {kept}")
    elif len(alike) < len(streams):
        error = StreamError(f"{source} joins files of different rates or channels; only those like the first: {kept}")
    text = _summary(source, written / shape[0], size_bytes, started)
    return Result(text, written / shape[0], bytes_in=size_bytes, error=error, kept=True)


def verify_file(source: str, target: str, model: str | None, tick: Callable[[float], None]) -> Result:
    """Check every group of a `.nacre` file; the target is nowhere."""
    groups, lost, files, seconds, size_bytes, faults = 0, 0, open_all(source, model), 0.0, 0, set[str]()
    for contents, codec in files:
        damage = codec.verify(contents)
        report_damage(source, damage, contents, seconds)
        if contents.skipped_bytes:
            warn(f"{source}: {contents.skipped_bytes} bytes belong to no group")
            faults.add("some bytes belong to no group")
        if contents.truncated:
            faults.add("its end is missing")
        lost += len(damage) + contents.missing
        groups += len(contents.packets) + contents.missing
        seconds += (contents.samples or 0) / contents.header.rate_hz
        size_bytes += contents.size_bytes
    joined = f", in {len(files)} joined files" if len(files) > 1 else ""
    damages = [*([f"{lost} of {groups} groups are lost"] if lost else []), *sorted(faults)]
    error = StreamError(f"{source} is damaged: {', '.join(damages)}") if damages else None
    return Result(f"{source}: {groups} groups, all good{joined}", seconds, size_bytes, error=error, kept=True)


def features_file(
    source: str,
    target: str,
    kind: str,
    pool: str | None,
    level: int | None,
    model: str,
    force: bool,
    tick: Callable[[float], None],
) -> Result:
    """Sound or a `.nacre` file to an array in a `.npy` file."""
    from nacre.tools import features

    losses: list[AudioError] = []
    values = features.from_file(source, kind, pool, model=model, level=level, losses=losses)
    features.save(target, values, force)
    tick(1.0)
    pace = "one row" if pool else f"{features.frame_rate_hz(kind, model):g} frames a second"
    text = f"{source}: {kind} {list(values.shape)} {values.dtype}, {pace}"
    return Result(text, error=losses[0] if losses else None, kept=True)


def conceal_file(
    source: str, target: str, lost: str | None, model: str | None, force: bool, tick: Callable[[float], None]
) -> Result:
    """Fill the stretches `lost` of a sound file, and damaged groups of a `.nacre` file."""
    from nacre.io.audio import lossless_subtype
    from nacre.tools import restore

    stretches, damaged, lacks = restore.stretches(lost) if lost is not None else [], 0, ""
    recording: Recording | None = None
    if is_coded(source):
        contents, codec = open_coded(source, model)
        stream = codec.decoder(contents)
        wave, rate_hz, subtype = stream.whole(), stream.rate_hz, None
        report_damage(source, stream.damage, contents)
        damaged = len(stream.damage)
        lacks = missing(contents) if contents.truncated else ""
    else:
        codec = codec_of(model or DEFAULT_MODEL)
        recording = _loaded(source)
        wave, rate_hz, subtype = recording.wave, recording.rate_hz, lossless_subtype(recording.subtype, target)
    started = time.perf_counter()
    wave = restore.conceal(codec, wave, rate_hz, stretches, tick=tick)
    _write_sound(target, wave, rate_hz, force, subtype)
    gaps = restore.spans(stretches, wave.shape[1], rate_hz)
    lost_s = sum(stop - start for start, stop in gaps) / rate_hz
    done = f"{source}: concealed {len(gaps)} stretches, {lost_s:.3f} s"
    if damaged:
        done += f", and {damaged} damaged groups"
    duration_s = wave.shape[1] / rate_hz
    error: NacreError | None = recording.loss if recording else None
    if lacks:
        error = StreamError(f"{done}; the file is cut short after {clock(duration_s)}: {lacks}; get the whole file")
    return Result(f"{done}  {_pace(duration_s, started)}", duration_s, error=error, kept=True)


def denoise_file(
    source: str, target: str, strength: float, model: str, force: bool, tick: Callable[[float], None]
) -> Result:
    """Leave out what is not speech."""
    from nacre.tools.denoise import denoise

    codec = codec_of(model)
    recording = _loaded(source)
    started = time.perf_counter()
    clean = denoise(codec, recording.wave, recording.rate_hz, strength=strength, tick=tick)
    _write_sound(target, clean, recording.rate_hz, force)
    text = f"{source}: denoised  {_pace(recording.duration_s, started)}"
    return Result(text, recording.duration_s, error=recording.loss, kept=True)


def interpolate_files(
    source: str, target: str, second: str, steps: int, model: str, force: bool, tick: Callable[[float], None]
) -> Result:
    """Steps between two recordings, in a folder or one after another in a file."""
    from nacre.io.audio import FORMATS
    from nacre.tools.edit import between, joined

    check_apart(second, target)
    codec, one, two = codec_of(model), _loaded(source), _loaded(second)
    started, rate_hz, waves = time.perf_counter(), codec.config.rate_hz, []
    for wave in between(codec, (one.wave, one.rate_hz), (two.wave, two.rate_hz), steps):
        waves.append(wave)
        tick(len(waves) / steps)
    if target == "-" or Path(target).suffix.lower() in FORMATS:
        _write_sound(target, joined(waves, round(PAUSE_S * rate_hz))[None], rate_hz, force)
    else:
        names = [f"step-{step:0{len(str(steps))}d}.wav" for step in range(1, steps + 1)]
        _make_folder(target)
        _write_all([str(Path(target, name)) for name in names], waves, rate_hz, force)
    made_s = sum(len(wave) for wave in waves) / rate_hz
    text = f"{source} to {second}: {steps} steps written to {target}  {_pace(made_s, started)}"
    return Result(text, made_s, error=one.loss or two.loss, kept=True)


def resynth_file(
    source: str,
    target: str,
    speed: float,
    semitones: float,
    formants: bool,
    model: str,
    force: bool,
    tick: Callable[[float], None],
) -> Result:
    """The same sound, resynthesised at another pace or pitch."""
    from nacre.tools.edit import resynthesise

    codec, recording = codec_of(model), _loaded(source)
    wave, rate_hz = recording.wave, recording.rate_hz
    started = time.perf_counter()
    again = resynthesise(codec, wave, rate_hz, speed=speed, semitones=semitones, formants=formants, tick=tick)
    _write_sound(target, again, rate_hz, force)
    lengths = f"{clock(wave.shape[1] / rate_hz)} resynthesised in {clock(again.shape[1] / rate_hz)}"
    text = f"{source}: {lengths}  {_pace(recording.duration_s, started)}"
    return Result(text, again.shape[1] / rate_hz, error=recording.loss, kept=True)


def sample_file(
    source: str,
    target: str,
    seconds: float,
    settings: dict[str, Any],
    prompted: bool,
    model: str,
    force: bool,
    tick: Callable[[float], None],
) -> Result:
    """Sound drawn from the prior, from nothing or on from `source`."""
    from nacre.tools.sample import sample

    codec, recording = codec_of(model), _loaded(source) if prompted else None
    prompt = (recording.wave, recording.rate_hz) if recording else None
    started = time.perf_counter()
    made = sample(codec, seconds, prompt=prompt, **settings, tick=tick)
    _write_sound(target, made.wave[None], made.rate_hz, force)
    lengths = f"{seconds:g} s sampled"
    if prompt:
        end = f"the last {made.prompt_samples / made.rate_hz:.2f} s of {source}, as decoded"
        lengths = f"{end}, then {lengths}"
    text = f"{target}: {lengths}  --seed {made.seed} --level {made.level}  {_pace(seconds, started)}"
    return Result(text, seconds, error=recording.loss if recording else None, kept=True)


def advise_size(model: str, packet_bytes: int) -> None:
    """Warn where packets of this size are smaller than the model's lowest level needs."""
    from nacre.codec.fixed_size import MIN_PACKET_BYTES
    from nacre.model import bundle as bundles

    bundle = bundles.find(model)
    seconds = bundle.config.group_samples / bundle.config.rate_hz
    least = math.ceil(float(bundle.rates_kbps[0]) * 125 * seconds)
    if MIN_PACKET_BYTES <= packet_bytes < least:
        text = f"packets of {packet_bytes} bytes are too small for clear speech; {bundle.name} needs {least} or more"
        warn(f"warning: {text}")


def _loaded(source: str) -> Recording:
    """A whole recording. Prints the reader's notes; `loss` of the result says what is missing."""
    from nacre.io.audio import read_with_facts

    recording = read_with_facts(source)
    _note(recording.notes)
    return recording


def _note(notes: list[str]) -> None:
    for note in notes:
        warn(f"warning: {note}")


def modified_s(source: str) -> float | None:
    """When a file was changed last, in seconds since 1970; None for pipes."""
    return os.stat(source).st_mtime if os.path.isfile(source) else None


def keep_time(source: str, target: str, then_s: float | None = None) -> None:
    """Give an output the time of change that its input has, or had."""
    then_s = modified_s(source) if then_s is None else then_s
    if then_s is not None and os.path.isfile(target):
        with suppress(OSError):
            os.utime(target, (then_s, then_s))


def _make_folder(target: str) -> None:
    try:
        Path(target).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"folder {target} cannot be made ({reason(error)}); choose another --output") from error


def _write_sound(target: str, wave: Any, rate_hz: int, force: bool, subtype: str | None = None) -> None:
    from nacre.io.audio import AudioWriter

    with AudioWriter(target, rate_hz, len(wave), overwrite=force, subtype=subtype) as writer:
        writer.write(wave)


def _write_all(paths: list[str], waves: list[Any], rate_hz: int, force: bool) -> None:
    """All of these files or, as far as they are new, none."""
    from nacre.io.audio import check_free

    there, written = [path for path in paths if os.path.lexists(path)], []
    for path in there:
        check_free(path, force)
    try:
        for path, wave in zip(paths, waves, strict=True):
            _write_sound(path, wave[None], rate_hz, force)
            written.append(path)
    except BaseException:
        for path in set(written) - set(there):
            Path(path).unlink(missing_ok=True)
        raise


def _pace(duration_s: float, started: float) -> str:
    return f"{duration_s / max(1e-9, time.perf_counter() - started):.0f} x real time"


class _Counted:
    """A binary file that knows how far it was written, pipes included."""

    def __init__(self, file: BinaryIO):
        self._file, self.size_bytes = file, 0
        self.tell, self.seek = file.tell, file.seek

    def seekable(self) -> bool:
        """Standard output may be a file or a pipe: count on no more than a pipe there."""
        standard = sys.stdout is not None and self._file is sys.stdout.buffer
        return not standard and self._file.seekable()

    def write(self, data: bytes) -> int:
        """Write and count; a header written again counts once."""
        before = self._file.tell() if self.seekable() else self.size_bytes
        self.size_bytes = max(self.size_bytes, before + len(data))
        return self._file.write(data)


def _summary(name: str, duration_s: float, size_bytes: int, started: float) -> str:
    rate = kbps(size_bytes, duration_s)
    return f"{name}: {clock(duration_s)}  {size_bytes} bytes  {rate:.2f} kb/s  {_pace(duration_s, started)}"
