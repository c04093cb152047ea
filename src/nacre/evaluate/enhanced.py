"""Opus with the networks of its decoder: LACE and NoLACE as peers, and deep PLC over lines that lose packets.

wav -> opus_encode.py, libopus in the wheel of PyAV -> packets -> opus_decode.mjs, node, npm's opus-ml -> wav
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.evaluate import opus_encode
from nacre.evaluate.peer import SHORTEST_LIMIT_S, Peer, fitted
from nacre.evaluate.programs import PeerError, run_command
from nacre.io import audio
from nacre.link.line import Line, lost

HERE = Path(__file__).parent
LEAST_KBPS = 5.0  # in wide band
DECODER = "@wasm-audio-decoders/opus-ml"
FRAME_COUNT = 0b11  # in the first byte of a packet (RFC 6716, section 3.1); 0 is one frame
LOOK_AHEAD_SAMPLES = 104  # 6.5 ms: 2.5 for the encoder's look-ahead, 4 for its modes to meet


def enhanced_opus(name: str, enhancer: str) -> Peer:
    """A peer whose decoder uses `enhancer`, lace or nolace."""
    encode = [sys.executable, str(HERE / "opus_encode.py"), "{in}", "{out}", "{kbps}", libopus()]
    return Peer(
        name,
        shlex.join(encode),
        shlex.join(_decoder("{in}", "{out}", enhancer)),
        ".opus-packets",
        usual_kbps=(6, 9, 12),
        lowest_kbps=LEAST_KBPS,
        delay_samples=LOOK_AHEAD_SAMPLES,
        frame_samples=opus_encode.FRAME_SAMPLES,
        payload=packet_bytes,
        needs=(("node", "nodejs"),),
        lacks=lacks,
        release=release,
        about="wide band by name, voice, variable rate, complexity 10, frames of 20 ms",
    )


def call(wave: Array, bitrate_kbps: float, line: Line, enhancer: str = "nolace") -> tuple[Array, float]:
    """wave [N] float32 at 16 kHz -> (decoded [N], kb/s of the packets): a call in wide band with deep PLC, without FEC.

    Deep PLC is a network in the decoder that extrapolates speech over lost packets (libopus 1.5, 2024). The encoder is
    given the loss. Raises PeerError where `lacks` would say something.
    """
    samples = np.rint(np.pad(np.clip(wave, -1, 1), (0, LOOK_AHEAD_SAMPLES)) * 32767).astype("<i2")
    sent = list(opus_encode.encode(samples.tobytes(), bitrate_kbps, libopus(), round(100 * line.loss)))
    with tempfile.TemporaryDirectory(prefix="nacre-") as folder:
        source, target = Path(folder, "arrived"), Path(folder, "decoded.wav")
        source.write_bytes(opus_encode.framed(len(samples), _arrived(sent, lost(line, len(sent)))))
        run_command(_decoder(str(source), str(target), enhancer), target, SHORTEST_LIMIT_S + 20 * len(sent) / 50)
        decoded = audio.read(target)[0][0][LOOK_AHEAD_SAMPLES:]
    return fitted(decoded, len(wave)), kbps(sum(map(len, sent)), len(wave) / opus_encode.RATE_HZ)


def _arrived(sent: list[bytes], gone: list[bool]) -> Iterator[bytes]:
    """What is decoded. A header without a frame makes the decoder conceal as many samples as it announces."""
    last = bytes([sent[0][0] & ~FRAME_COUNT])
    for packet, missing in zip(sent, gone, strict=True):
        if not missing:
            last = bytes([packet[0] & ~FRAME_COUNT])
        yield last if missing else packet


def _decoder(source: str, target: str, enhancer: str) -> list[str]:
    return ["node", str(HERE / "opus_decode.mjs"), source, target, enhancer, node_modules()]


def lacks() -> str:
    """What is missing beside node, or ''."""
    if not libopus():
        return "the libopus in PyAV's wheel, pip install 'nacre[opus]'"
    if not node_modules():
        return f"npm install {DECODER} in the folder where you work, or NODE_PATH naming the node_modules that has it"
    return ""


def ready() -> bool:
    """Whether Opus and its networks can be used here."""
    return shutil.which("node") is not None and not lacks()


def release() -> str:
    """Encoder and decoder with their versions."""
    about = json.loads(Path(node_modules(), DECODER, "package.json").read_text(encoding="utf-8"))
    return f"{opus_encode.version(libopus())} coded, opus-ml {about['version']} decoded"


def libopus() -> str:
    """The library in PyAV's wheel, which is newer than most systems' own; '' where there is none."""
    spec = importlib.util.find_spec("av")
    if spec is None or not spec.submodule_search_locations:
        return ""
    package = Path(spec.submodule_search_locations[0])
    places = (package.parent / "av.libs", package / ".dylibs")  # Linux and Windows, macOS
    return next((str(path) for place in places for path in sorted(place.glob("*opus[-.]*"))), "")


def node_modules() -> str:
    """The folder that has npm's decoder: in NODE_PATH, here, or above; '' where there is none."""
    return next((str(folder) for folder in _folders() if (folder / DECODER / "package.json").is_file()), "")


def _folders() -> Iterator[Path]:
    yield from map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))
    here = Path.cwd()
    yield from (folder / "node_modules" for folder in (here, *here.parents))


def packet_bytes(data: bytes) -> int:
    """Bytes of the packets in a file of opus_encode.py, without the count of samples and the lengths."""
    at, total = 4, 0
    while at + 2 <= len(data):
        (size,) = struct.unpack_from("<H", data, at)
        at, total = at + 2 + size, total + size
    if at != len(data):
        raise PeerError(f"the file of Opus packets has {len(data)} bytes, but its packets end at {at}")
    return total
