"""The codecs that nacre is compared with: the built-in ones, those given as commands, and choosing among them."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace

from nacre.core.errors import UsageError
from nacre.evaluate.enhanced import enhanced_opus
from nacre.evaluate.payload import amr_wb_payload_bytes, mp3_payload_bytes, ogg_payload_bytes
from nacre.evaluate.peer import Mode, Peer
from nacre.evaluate.python_peer import PythonPeer, custom_object

SEPARATOR = ":::"


def _opus() -> Peer:
    """VBR, complexity 10, 20 ms frames; both decoders take the pre-skip off."""
    tools = Peer(
        "opus",
        "opusenc --quiet --vbr --comp 10 --bitrate {kbps} {in} {out}",
        "opusdec --quiet --rate {rate} --float --no-dither {in} {out}",
        ".opus",
        usual_kbps=(6, 8, 10, 12, 16),
        lowest_kbps=5.0,
        any_rate=True,
        payload=ogg_payload_bytes,
        needs=(("opusenc", "opus-tools"), ("opusdec", "opus-tools")),
        about="variable rate, complexity 10, frames of 20 ms",
    )
    if not tools.missing() or shutil.which("ffmpeg") is None:
        return tools
    return replace(
        tools,
        encode=_ffmpeg("-c:a libopus -vbr on -compression_level 10 -b:a {bps}"),
        decode="ffmpeg -v error -y -threads 1 -c:a libopus -i {in} -ar {rate} -c:a pcm_f32le {out}",
        needs=(("ffmpeg", "opus-tools or ffmpeg"),),
        ffmpeg_encoder="libopus",
    )


def _ffmpeg(options: str) -> str:
    return f"ffmpeg -v error -y -threads 1 -i {{in}} {options} {{out}}"


def builtin() -> dict[str, Peer]:
    """The peers that need no commands, by name."""
    opus = _opus(), enhanced_opus("opus-lace", "lace"), enhanced_opus("opus-nolace", "nolace")
    return {peer.name: peer for peer in (*opus, _codec2(), _speex(), _amr_wb(), _mp3())}


def _codec2() -> Peer:
    words = {"700C": 0.7, "1200": 1.2, "1300": 1.3, "1400": 1.4, "1600": 1.6, "2400": 2.4, "3200": 3.2}
    late = {"700C": 480}  # 30 ms, by envelopes; the others 20 ms, half their pitch window
    return Peer(
        "codec2",
        "c2enc {mode} {in} {out}",
        "c2dec {mode} {in} {out}",
        ".c2bits",
        usual_kbps=(0.7, 1.2, 1.6, 2.4, 3.2),
        modes=tuple(Mode(kbps, word, late.get(word, 320)) for word, kbps in words.items()),
        rate_hz=8_000,
        raw=True,
        frame_samples=640,
        needs=(("c2enc", "codec2"), ("c2dec", "codec2")),
        about="8 kHz, so half the band of the others; every frame filled up to whole bytes",
    )


def _speex() -> Peer:
    modes_kbps = (3.95, 5.75, 7.75, 9.8, 12.8, 16.8, 20.6, 23.8, 27.8)
    return Peer(
        "speex",
        _ffmpeg("-c:a libspeex -cbr_quality {mode} -compression_level 10"),
        _ffmpeg("-c:a pcm_s16le"),
        ".spx",
        usual_kbps=(5.75, 7.75, 9.8, 12.8, 16.8),
        modes=tuple(Mode(kbps, str(quality), 221) for quality, kbps in enumerate(modes_kbps)),
        frame_samples=320,
        payload=ogg_payload_bytes,
        needs=(("ffmpeg", "ffmpeg"),),
        ffmpeg_encoder="libspeex",
        about="wideband, constant rate, complexity 10",
    )


def _amr_wb() -> Peer:
    modes_kbps = (6.6, 8.85, 12.65, 14.25, 15.85, 18.25, 19.85, 23.05, 23.85)
    return Peer(
        "amr-wb",
        _ffmpeg("-c:a libvo_amrwbenc -b:a {bps} -f amr"),
        "ffmpeg -v error -y -threads 1 -c:a amrwb -f amr -i {in} -c:a pcm_s16le {out}",
        ".awb",
        usual_kbps=(6.6, 8.85, 12.65, 14.25, 15.85),
        modes=tuple(Mode(kbps, delay_samples=95) for kbps in modes_kbps),  # look-ahead 80, resampling 15
        frame_samples=320,
        payload=amr_wb_payload_bytes,
        needs=(("ffmpeg", "libavcodec-extra"),),
        ffmpeg_encoder="libvo_amrwbenc",
        ffmpeg_package="libavcodec-extra",
        about="constant rate, sends in pauses too; VisualOn's encoder, ffmpeg's decoder",
    )


def _mp3() -> Peer:
    return Peer(
        "mp3",
        _ffmpeg("-c:a libmp3lame -b:a {bps} -id3v2_version 0"),
        _ffmpeg("-c:a pcm_s16le"),
        ".mp3",
        usual_kbps=(8, 16, 24, 32, 40),
        modes=tuple(Mode(kbps) for kbps in (8, 16, 24, 32, 40, 48, 56, 64)),
        any_rate=True,
        spare_samples=576,
        payload=mp3_payload_bytes,
        needs=(("ffmpeg", "ffmpeg"),),
        ffmpeg_encoder="libmp3lame",
        about="constant rate; its bit reservoir counts where it is filled",
    )


def custom(text: str) -> Peer:
    """A peer from `name=encode ... {in} {out} {kbps} ::: decode ... {in} {out} [::: delay in samples at 16 kHz]`."""
    name, _, commands = text.partition("=")
    parts = [part.strip() for part in commands.split(SEPARATOR)]
    form = 'name="encoder {in} {out} {kbps} ::: decoder {in} {out}"'
    if not name.strip() or len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"--peer-cmd {text} is incomplete; write it as {form}")
    for part in parts[:2]:
        try:
            shlex.split(part)
        except ValueError as error:
            raise UsageError(f"--peer-cmd has a broken command, {part} ({error}); write it as {form}") from error
        if "{in}" not in part or "{out}" not in part:
            raise UsageError(f"--peer-cmd needs {{in}} and {{out}} in both commands, but one is {part}")
    if len(parts) == 3 and not parts[2].isdecimal():
        raise UsageError(f"--peer-cmd ends in {parts[2]}; give the delay in samples at 16 kHz, as in {form} ::: 320")
    needs = tuple((shlex.split(part)[0], "that brings it, or give its full path") for part in parts[:2])
    delay = int(parts[2]) if len(parts) == 3 else 0
    return Peer(
        name.strip(),
        parts[0],
        parts[1],
        delay_samples=delay,
        usual_kbps=(6, 9, 12),
        needs=needs,
        any_rate=any("{rate}" in part for part in parts[:2]),
    )


def choose(names: list[str], commands: list[str], objects: list[str] | None = None) -> list[Peer | PythonPeer]:
    """Peers by name, by command and by Python object; raises UsageError for an unknown or a doubled name."""
    known = builtin()
    for name in names:
        if name not in known:
            raise UsageError(f"--peers {name} is unknown; choose from {', '.join(known)}, or use --peer-cmd")
    chosen: list[Peer | PythonPeer] = [known[name] for name in dict.fromkeys(names)]
    chosen += [*map(custom, commands), *map(custom_object, objects or ())]
    seen: set[str] = set()
    for peer in chosen:
        if peer.name in seen or peer.name.startswith("nacre") or peer.name == "original":
            raise UsageError(f"the codec name {peer.name} is taken; give each codec a name of its own")
        seen.add(peer.name)
    return chosen
