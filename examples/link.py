"""Send 20 ms packets over a link that loses some: python examples/link.py IN.wav OUT.wav --loss 0.05.

The encoder and the decoder are two functions that take their state and give it back. Packets stand alone here
(`Options()`), so that a lost one costs its own 20 ms only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import nacre
from nacre.codec.decoder import decode_frames
from nacre.codec.encoder import encode_frames
from nacre.codec.state import start_decoder, start_encoder
from nacre.io import audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--loss", type=float, default=0.05, help="share of packets that are lost")
    parser.add_argument("--bitrate", type=float, default=6.0, help="kb/s, of packets of a second")
    given = parser.parse_args()
    codec = nacre.load("speech-16k")
    model, hop = codec.model, codec.config.hop_samples
    wave, rate_hz = audio.read(given.source)
    sound = audio.resampled(wave.mean(0), rate_hz, codec.config.rate_hz)
    level = codec.rate_plan(1, given.bitrate, None).level
    sender, receiver = start_encoder(model, residual=True), start_decoder(model)
    chance, heard, size_bytes = np.random.default_rng(0), [], 0
    for at in range(0, len(sound) - hop + 1, hop):
        packet, sender = encode_frames(model, sender, sound[at : at + hop], level)
        size_bytes += len(packet.payload)
        arrived = packet if chance.random() >= given.loss else None
        piece, receiver = decode_frames(model, receiver, arrived, frames=1)
        heard.append(piece)
    audio.write(given.target, np.concatenate(heard)[None], codec.config.rate_hz, overwrite=True)
    print(f"{len(heard)} packets, {8 * size_bytes / len(heard) / 20:.1f} kb/s of payload")


if __name__ == "__main__":
    main()
