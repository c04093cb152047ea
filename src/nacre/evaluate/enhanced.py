"""Opus with the neural enhancers of its decoder, LACE and NoLACE, as peers of their own.

wav -> opus_encode.py, libopus in the wheel of PyAV -> packets -> opus_decode.mjs, node, npm's opus-ml -> wav
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from nacre.evaluate import opus_encode
from nacre.evaluate.peer import Peer
from nacre.evaluate.programs import PeerError

HERE = Path(__file__).parent
DECODER = "@wasm-audio-decoders/opus-ml"
LOOK_AHEAD_SAMPLES = 104  # 6.5 ms: 2.5 for the encoder's look-ahead, 4 for its modes to meet


def enhanced_opus(name: str, enhancer: str) -> Peer:
    """A peer whose decoder uses `enhancer`, lace or nolace."""
    encode = [sys.executable, str(HERE / "opus_encode.py"), "{in}", "{out}", "{kbps}", libopus()]
    decode = ["node", str(HERE / "opus_decode.mjs"), "{in}", "{out}", enhancer, node_modules()]
    return Peer(
        name,
        shlex.join(encode),
        shlex.join(decode),
        ".opus-packets",
        usual_kbps=(6, 9, 12),
        lowest_kbps=5.0,
        delay_samples=LOOK_AHEAD_SAMPLES,
        frame_samples=opus_encode.FRAME_SAMPLES,
        payload=packet_bytes,
        needs=(("node", "nodejs"),),
        lacks=lacks,
        release=release,
        about="wide band by name, voice, variable rate, complexity 10, frames of 20 ms",
    )


def lacks() -> str:
    """What is missing beside node, or ''."""
    if not libopus():
        return "the libopus in PyAV's wheel, pip install 'nacre[opus]'"
    if not node_modules():
        return f"npm install {DECODER} in the folder where you work, or NODE_PATH naming the node_modules that has it"
    return ""


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
        raise PeerError("Opus packets", found=f"{len(data)} bytes", wanted=f"{at}")
    return total
