"""The bundled speech at several bitrates: files to compare, a table, and one page with players and spectrograms.

clips/*.flac -> encode -> name-rate.nacre -> decode -> name-rate.wav
             -> Opus at its lowest rate, name-opus.ogg, to compare with
                                all of them -> index.html, with sound and pictures inside, for use offline
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from nacre.codec.codec import Codec, load
from nacre.core.errors import AudioError, UsageError, reason
from nacre.core.units import kbps
from nacre.io import audio
from nacre.tools.html import COLUMNS, ONE_PLAYER, ROWS, Array, data_uri, flac, spectrogram, spectrum_db, style

CLIPS = Path(__file__).parent.parent / "clips"
NEXT = "<!-- next template"  # page, recording, row and switch are templates in one file
CLIP_RATE_HZ = 16_000


@dataclass(frozen=True)
class Clip:
    """One of the package's recordings: wave [1, N] float32 at 16 kHz, and the file it is from."""

    name: str
    origin: str
    flac: bytes
    wave: Array

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.wave[0]) / CLIP_RATE_HZ

    @property
    def pcm_bytes(self) -> int:
        """Size as 16-bit samples."""
        return 2 * len(self.wave[0])


@dataclass(frozen=True)
class Coded:
    """A clip at one rate: the `.nacre` file, what it decodes to [1, N], and the time both took."""

    clip: Clip
    target_kbps: float
    data: bytes
    wave: Array
    encode_s: float
    decode_s: float

    @property
    def stem(self) -> str:
        """File name without a suffix."""
        return f"{self.clip.name}-{self.target_kbps:g}"

    @property
    def rate_kbps(self) -> float:
        """Measured rate of the file."""
        return kbps(len(self.data), self.clip.duration_s)

    @property
    def times_smaller(self) -> float:
        """16-bit samples over the file."""
        return self.clip.pcm_bytes / len(self.data)


@dataclass(frozen=True)
class Opus:
    """A clip as Opus in Ogg at the lowest rate that libsndfile has: the file, and what it decodes to [1, N]."""

    clip: Clip
    data: bytes
    wave: Array

    @property
    def rate_kbps(self) -> float:
        """Measured rate of the file."""
        return kbps(len(self.data), self.clip.duration_s)


def opus(clip: Clip) -> Opus:
    """What most people would use instead."""
    data, wave = audio.smallest_opus(clip.wave[0], CLIP_RATE_HZ)
    return Opus(clip, data, wave[np.newaxis])


def run(out: Path, bitrates: list[float], model: str, force: bool, quiet: bool = False) -> Path:
    """Code the clips at these rates into the folder `out`; gives the page. Nothing is written before all is coded.

    Raises UsageError for rates the model lacks, AudioError where `out` is in use and `force` is not given.
    """
    _check_free(out, force)
    codec = load(model)
    rates = sorted({f"{rate:g}": rate for rate in bitrates}.values())  # one file name, one rate
    if not rates:
        raise UsageError("no bitrate is given; name some, as in --bitrates 1.5,3,6")
    for rate in rates:
        codec.rate_plan(1, rate, None)
    clips = read_clips()
    coded = _code(codec, clips, rates, quiet)
    rivals = [opus(clip) for clip in clips]
    page = _page(codec, clips, coded, rivals).encode()
    _write(out, clips, coded, rivals, page)
    if not quiet:
        Console(highlight=False).print(_table(coded))
    return out / "index.html"


def read_clips() -> list[Clip]:
    """The recordings in the package, by name."""
    lines = (CLIPS / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    origins = {name: ", ".join(facts) for name, *facts in cells}
    return [_clip(path, origins.get(path.name, "")) for path in sorted(CLIPS.glob("*.flac"))]


def _clip(path: Path, origin: str) -> Clip:
    wave, rate_hz = audio.read(path)
    assert (len(wave), rate_hz) == (1, CLIP_RATE_HZ), path
    return Clip(path.stem, origin, path.read_bytes(), wave)


def _check_free(out: Path, force: bool) -> None:
    try:
        if out.exists() and not out.is_dir():
            raise AudioError(f"{out} is a file; choose another name for the folder")
        used = out.exists() and any(out.iterdir())
    except OSError as error:
        raise AudioError(f"folder {out} cannot be read ({reason(error)}); choose another with --out") from error
    if used and not force:
        raise AudioError(f"folder {out} is not empty; choose a new one with --out, or write into it with --force")


def _code(codec: Codec, clips: list[Clip], rates: list[float], quiet: bool) -> list[Coded]:
    say = Console(stderr=True, highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    first_s = clips[0].wave[:, :CLIP_RATE_HZ]
    codec.decode(codec.encode(first_s, CLIP_RATE_HZ, bitrate_kbps=rates[0]))  # a first run is slow; not timed
    coded = []
    with Progress(*columns, console=say, disable=quiet or not say.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=len(clips) * len(rates))
        for clip in clips:
            for rate in rates:
                bar.update(task, description=f"{clip.name} at {rate:g} kb/s")
                coded.append(_code_one(codec, clip, rate))
                bar.advance(task)
    return coded


def _code_one(codec: Codec, clip: Clip, rate_kbps: float) -> Coded:
    start_s = time.perf_counter()
    data = codec.encode(clip.wave, CLIP_RATE_HZ, bitrate_kbps=rate_kbps)
    middle_s = time.perf_counter()
    wave, _ = codec.decode(data)  # [1, N]
    return Coded(clip, rate_kbps, data, wave, middle_s - start_s, time.perf_counter() - middle_s)


def _write(out: Path, clips: list[Clip], coded: list[Coded], rivals: list[Opus], page: bytes) -> None:
    """All files, the page last: where it is, the rest is whole."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"folder {out} cannot be made ({reason(error)}); choose another with --out") from error
    for clip in clips:
        _write_bytes(out / f"{clip.name}.flac", clip.flac)
    for item in coded:
        _write_bytes(out / f"{item.stem}.nacre", item.data)
        audio.write(out / f"{item.stem}.wav", item.wave, CLIP_RATE_HZ, overwrite=True)
    for rival in rivals:
        _write_bytes(out / f"{rival.clip.name}-opus.ogg", rival.data)
    _write_bytes(out / "index.html", page)


def _write_bytes(path: Path, data: bytes) -> None:
    with audio.output_file(path, overwrite=True) as file:
        file.write(data)


def _table(coded: list[Coded]) -> Table:
    table = Table("clip", box=None)
    for name in ("target kb/s", "bytes", "measured kb/s", "times smaller", "encode", "decode"):
        table.add_column(name, justify="right")
    for before, item in zip([None, *coded], coded, strict=False):
        duration_s = item.clip.duration_s
        table.add_row(
            item.clip.name if before is None or before.clip is not item.clip else "",
            f"{item.target_kbps:g}",
            str(len(item.data)),
            f"{item.rate_kbps:.2f}",
            f"{item.times_smaller:.0f}",
            f"{duration_s / item.encode_s:.0f} x",
            f"{duration_s / item.decode_s:.0f} x",
        )
    table.caption = "smaller than 16-bit samples; speeds in times real time"
    return table


def _page(codec: Codec, clips: list[Clip], coded: list[Coded], rivals: list[Opus]) -> str:
    page, section, row, switch = _templates()
    sections = []
    for clip, rival in zip(clips, rivals, strict=True):
        of_clip = [item for item in coded if item.clip is clip]
        facts = {"name": escape(clip.name), "seconds": f"{clip.duration_s:.1f}", "width": COLUMNS, "height": ROWS}
        rows = [_original_facts(clip), *map(_coded_facts, of_clip), _opus_facts(rival)]
        waves = [*(item.wave for item in of_clip), rival.wave]
        sounds = [clip.flac, *(flac(wave, CLIP_RATE_HZ) for wave in waves)]
        levels_db = [spectrum_db(wave[0]) for wave in (clip.wave, *waves)]
        loudest_db = float(levels_db[0].max())
        filled = [
            row.substitute(
                facts,
                **texts,
                sound=data_uri("audio/flac", sound),
                picture=data_uri("image/png", spectrogram(level_db, loudest_db)),
            )
            for texts, sound, level_db in zip(rows, sounds, levels_db, strict=True)
        ]
        switches = "".join(switch.substitute(label=texts["label"]) for texts in rows)
        named = {"name": facts["name"], "origin": escape(clip.origin)}
        sections.append(section.substitute(named, switches=switches, rows="".join(filled)))
    return page.substitute(
        style=style(),
        one_player=ONE_PLAYER,
        model=escape(codec.bundle.name),
        fingerprint=codec.bundle.fingerprint.hex(),
        count=len(clips),
        rates=", ".join(dict.fromkeys(f"{item.target_kbps:g}" for item in coded)),
        links=" ".join(f'<a href="#{escape(clip.name)}">{escape(clip.name)}</a>' for clip in clips),
        clips="".join(sections),
    )


def _templates() -> list[Template]:
    """Templates of the page, of a recording, of a row and of its switch."""
    first, *others = Path(__file__).with_name("demo.html").read_text(encoding="utf-8").split(NEXT)
    return [Template(first), *(Template(text.partition("-->\n")[2]) for text in others)]


def _original_facts(clip: Clip) -> dict[str, str]:
    numbers = f"{clip.pcm_bytes:,} bytes = {kbps(clip.pcm_bytes, clip.duration_s):.0f} kb/s as 16-bit samples"
    return {"label": "Original", "spoken": "original", "numbers": numbers}


def _coded_facts(item: Coded) -> dict[str, str]:
    label = f"{item.target_kbps:g} kb/s"
    numbers = f"{len(item.data):,} bytes = {item.rate_kbps:.2f} kb/s, {item.times_smaller:.0f} times smaller"
    return {"label": label, "spoken": f"coded at {label}", "numbers": numbers}


def _opus_facts(item: Opus) -> dict[str, str]:
    numbers = f"{len(item.data):,} bytes = {item.rate_kbps:.2f} kb/s, Ogg's share included"
    return {"label": f"Opus, {item.rate_kbps:.0f} kb/s", "spoken": "coded by Opus", "numbers": numbers}
