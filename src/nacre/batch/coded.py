"""`.nacre` files as the commands take them: read, opened by the model that wrote them, described."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nacre.batch.messages import warn
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import StreamError, UsageError, reason
from nacre.core.kinds import MUSIC
from nacre.core.units import clock, kbps
from nacre.io.stdio import begins_coded, standard_input

if TYPE_CHECKING:
    from nacre.codec.codec import Codec
    from nacre.codec.file_decoder import Damage
    from nacre.format.file import Contents, Header
    from nacre.music.codec import MusicCodec

LARGEST_FILE_BYTES = 1 << 30

_CODECS: dict[str, Codec] = {}


def file_codec_of(model: str) -> Codec | MusicCodec:
    """A codec of files, of speech or of music, loaded once in each process."""
    if not _is_music(model):
        return codec_of(model)
    from nacre.music.codec import load_music

    return load_music(model)


def _is_music(model: str) -> bool:
    if model == DEFAULT_MODEL:  # known without a look, which takes time
        return False
    from nacre.music.model import is_music

    return is_music(model)


def codec_of(model: str) -> Codec:
    """A codec with latents, loaded once in each process. Raises UsageError for a model of music, which has none."""
    if model not in _CODECS:
        from nacre.codec.codec import Codec
        from nacre.model import bundle as bundles
        from nacre.model.model import Model

        if _is_music(model):
            raise UsageError(
                f"model {model} is for music and has no latents; use a speech model, such as {DEFAULT_MODEL}"
            )
        _CODECS[model] = Codec(Model.load(bundles.find(model)))
    return _CODECS[model]


def open_coded(file: str, model: str | None) -> tuple[Contents, Codec]:
    """Packets and codec of a file of a model with latents, chosen by its fingerprint.

    Raises StreamError for several joined, and for music.
    """
    contents, codec = open_one(file, model)
    if contents.header.kind == MUSIC:
        raise StreamError(f"{file} holds music, which has no latents; give a file of a speech model")
    return contents, cast("Codec", codec)


def open_one(file: str, model: str | None) -> tuple[Contents, Codec | MusicCodec]:
    """Packets and codec of a file. Raises StreamError for several joined."""
    return open_data(file, read_coded(file), model)


def open_data(file: str, data: bytes, model: str | None) -> tuple[Contents, Codec | MusicCodec]:
    """The same of a file's bytes."""
    files = _all_of(file, data, model)
    if len(files) > 1:
        raise StreamError(
            f"{file} holds {len(files)} joined .nacre files, but this command takes one; use `nacre decode`"
        )
    return files[0]


def open_all(file: str, model: str | None) -> list[tuple[Contents, Codec | MusicCodec]]:
    """Packets and codec of a file, or of each of several that were joined."""
    return _all_of(file, read_coded(file), model)


def _all_of(file: str, joined: bytes, model: str | None) -> list[tuple[Contents, Codec | MusicCodec]]:
    files = []
    for data in _apart(joined):
        codec = file_codec_of(model if model is not None else _model_of(file, data))
        try:
            files.append((codec.parse(data), codec))
        except StreamError as error:
            raise StreamError(f"{file}: {error}") from error
    return files


def _model_of(file: str, data: bytes) -> str:
    """The model of this package that wrote a file."""
    from nacre.format.file import unpack_header
    from nacre.model import bundle as bundles

    fingerprint = unpack_header(data).fingerprint
    if inside := bundles.by_fingerprint(fingerprint):
        return inside.name
    from nacre.music.model import NAME, find

    if fingerprint == find().fingerprint:
        return NAME
    by = f"was written by model {fingerprint.hex()}, which this package lacks"
    raise StreamError(f"{file} {by}; give the model's folder with --model")


def _apart(data: bytes) -> list[bytes]:
    """The bytes of each of the files that were joined to these; a header is known by its check value."""
    from nacre.core.kinds import MAGIC
    from nacre.format.file import HEADER_BYTES, unpack_header

    starts, at = [0], 0
    while (at := data.find(MAGIC, at + 1)) > 0:
        with suppress(StreamError):
            unpack_header(data[at : at + HEADER_BYTES])
            starts.append(at)
    return [data[start:stop] for start, stop in pairwise([*starts, len(data)])]


def is_coded(file: str) -> bool:
    """Whether a file, or standard input, starts as a .nacre file does, or has its suffix."""
    return Path(file).suffix == ".nacre" or begins_coded(file)


def read_coded(file: str) -> bytes:
    """The bytes of a `.nacre` file, or of standard input. Raises StreamError for other files, before reading them."""
    from nacre.format.file import HEADER_BYTES, unpack_header

    try:
        with nullcontext(standard_input()) if file == "-" else open(file, "rb") as source:
            head = source.read(HEADER_BYTES)
            unpack_header(head)  # before reading on: it may be a film
            data = head + source.read(LARGEST_FILE_BYTES)
    except OSError as error:
        raise StreamError(f"{file} cannot be read ({reason(error)}); check its name and permissions") from error
    except StreamError as error:
        raise StreamError(f"{file}: {error}") from error
    if len(data) > LARGEST_FILE_BYTES:
        raise StreamError(f"{file} is over 1 GB, too large for a .nacre file; split it")
    return data


def metadata_of(file: str, model: str | None) -> dict[str, Any]:
    """What `nacre info` shows of a file."""
    contents, codec = open_one(file, model)
    header, samples = contents.header, contents.samples
    duration_s = (samples or 0) / header.rate_hz
    levels = [packet.level for packet in contents.packets if packet is not None and packet.payload]
    size = contents.size_bytes
    return {
        "file": file,
        "model": f"{codec.model.name} ({header.fingerprint.hex()})",
        **_kind_metadata(codec, header),
        "duration_s": round(duration_s, 3),
        "samples": samples,
        "rate_hz": header.rate_hz,
        "channels": header.channels,
        "bytes": size,
        "kbps": round(kbps(size, duration_s), 3),
        "kbps_payload": round(kbps(contents.payload_bytes, duration_s), 3),
        "kbps_heads": round(kbps(contents.head_bytes, duration_s), 3),
        "bytes_payload": contents.payload_bytes,
        "bytes_heads": contents.head_bytes,
        "bytes_skipped": contents.skipped_bytes,
        "groups": len(contents.packets),
        "silent_groups": sum(packet is not None and not packet.payload for packet in contents.packets)
        - contents.intensity_groups,
        "joined_groups": contents.intensity_groups,
        "lost_groups": contents.lost,
        "levels": f"{min(levels)} to {max(levels)}" if levels else "none",
        "truncated": contents.truncated,
        **({"tags": contents.tags} if contents.tags else {}),
        **({"modified": _date(contents.modified_s)} if contents.modified_s is not None else {}),
        **({} if header.kind == MUSIC else _codebook_metadata(cast("Codec", codec), levels)),
    }


def _kind_metadata(codec: Codec | MusicCodec, header: Header) -> dict[str, Any]:
    if header.kind == MUSIC:
        return {"kind": "MUSIC", "band_khz": 20}
    from nacre.codec.band import KHZ
    from nacre.codec.stream import prior_of

    model = cast("Codec", codec).model
    band = {band: khz for khz, band in KHZ.items()}[header.band]
    return {"kind": model.quantiser.name, "prior": prior_of(model, header), "band_khz": band}


def _date(then_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(then_s))


def _codebook_metadata(codec: Codec, levels: list[int]) -> dict[str, Any]:
    """Of a model with codebooks: how many this file needs, what their indices cost, how much of them is in use."""
    books = codec.bundle.facts.codebooks
    if not books:
        return {}
    layout = codec.token_format(max(levels, default=0))
    saved = 1 - layout.coded_bits_per_s / layout.fixed_bits_per_s
    return {
        "codebooks": f"{len(layout.alphabet)} of {len(books['used'])}, {books['entries']} entries each",
        "codebook_entries_used": f"{min(books['used']):.0%} to {max(books['used']):.0%} in training speech",
        "codebook_perplexity": f"{min(books['perplexity']):g} to {max(books['perplexity']):g}",
        "saved_by_entropy_coding": f"{saved:.1%} of fixed-length indices, by the static prior",
    }


def report_damage(file: str, damage: list[Damage], contents: Contents, start_s: float = 0.0) -> None:
    """Warn of each damaged group, by time and channel, and of missing ones. The file's sound begins at `start_s`."""
    for item in damage:
        where = f"{clock(start_s + item.start_s)} to {clock(start_s + item.stop_s)}, channel {item.channel}"
        warn(f"{file}: {where}: {item.reason}")
    if contents.truncated:
        warn(f"{file} is cut short: {missing(contents)}")


def missing(contents: Contents) -> str:
    """What a file that is cut short lacks."""
    return f"{contents.missing} groups are missing" if contents.missing else "its end is missing"
