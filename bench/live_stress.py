"""A live decoder under strain: damaged packets by the ten thousand, and a call of any length over a bad line."""

from __future__ import annotations

import resource
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import typer
from common import RATE_HZ, looped_speech

import nacre
from nacre.format.live import pack_rtp, unpack_rtp
from nacre.link.line import Line, arrivals

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
HOP = 320


@app.command()
def mutate(
    data: Path, packets: int = 10_000, bits: int = 2, seconds: float = 60.0, seed: int = 0, model: str = "speech-16k"
) -> None:
    """Packets of a call, said again and again, of which half have `bits` bits flipped, head included, or are cut or
    made up; no exception is allowed. Says how loud the loudest 20 ms became beside the loudest of the original."""
    codec, rng = nacre.load(model), np.random.default_rng(seed)
    kbps = min(6.0, float(codec.bundle.rates_kbps[-1]))
    encoder = codec.live_encoder(RATE_HZ, bitrate_kbps=kbps, loss=0.1, source=1)
    decoder = codec.live_decoder(depth_ms=40)
    wave = np.concatenate(list(looped_speech(data, seconds)))
    sent = [unpack_rtp(packet) for packet in encoder.push(wave)]
    clean, levels, done, clock = codec.live_decoder(depth_ms=40), [], 0, 0.0
    plain = [peak_db(clean.push(pack_rtp(packet), 0.02 * at)) for at, packet in enumerate(sent)]
    loudest = max(size_db(block) for block in wave[: len(wave) // HOP * HOP].reshape(-1, HOP))
    for done in range(packets):
        clock += 0.02
        packet = pack_rtp(replace(sent[done % len(sent)], sequence=done, timestamp=HOP * done))
        levels.append(peak_db(decoder.push(broken(packet, rng, bits) if rng.random() < 0.5 else packet, clock)))
        if (done + 1) % (max(1, packets // 10)) == 0:
            print(f"{done + 1} packets, loudest so far {max(levels):.1f} dB", flush=True)
    print(f"half of them damaged: {asdict(decoder.stats)}")
    tail = np.percentile(levels, [99, 99.9, 100]).round(1)
    print(f"20 ms blocks: loudest original {loudest:.1f} dB, decoded {max(plain):.1f} dB, damaged {tail.tolist()} dB")
    above = [sum(level > most for level in levels) for most in (loudest, max(loudest, *plain))]
    print(f"blocks above the loudest original: {above[0]}, above the loudest that is decoded undamaged: {above[1]}")


def broken(packet: bytes, rng: np.random.Generator, bits: int) -> bytes:
    """A packet with bits flipped, cut short, lengthened, or of noise."""
    data, way = bytearray(packet), rng.integers(10)
    if way == 0:
        return bytes(data[: rng.integers(len(data))])
    if way == 1:
        return bytes(data) + rng.bytes(int(rng.integers(1, 20)))
    if way == 2:
        return bytes(data[:12]) + rng.bytes(int(rng.integers(0, 40)))
    first = 0 if way == 3 else 12
    for place in rng.integers(8 * first, 8 * len(data), bits):
        data[place // 8] ^= 1 << (place % 8)
    return bytes(data)


def size_db(wave: np.ndarray) -> float:
    """Level of wave [N] in dB."""
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)) + 1e-12))


def peak_db(wave: np.ndarray) -> float:
    """Level of the loudest 20 ms of wave [N]."""
    return max((size_db(wave[at : at + HOP]) for at in range(0, len(wave) - HOP + 1, HOP)), default=-120.0)


@app.command()
def long(
    data: Path, minutes: float = 60.0, loss: float = 20.0, jitter: float = 20.0, drift: float = 100.0,
    model: str = "speech-16k",
) -> None:  # fmt: skip
    """A call: memory and the wait of packets each tenth of it, and what came of its frames."""
    codec, line = nacre.load(model), Line(loss / 100, jitter_ms=jitter, drift_ppm=drift, seed=5)
    kbps = 6.0 if codec.bundle.rates_kbps[-1] > 6 else float(codec.bundle.rates_kbps[-1])
    encoder, decoder = codec.live_encoder(RATE_HZ, bitrate_kbps=kbps, loss=loss / 100, source=1), codec.live_decoder()
    way, flying, tick, start = arrivals(line), [], 0, time.process_time()
    ticks, counts = round(minutes * 3000), Counter()
    for wave in looped_speech(data, 60 * minutes):
        for at in range(0, len(wave) - HOP + 1, HOP):
            tick += 1
            now = 0.02 * tick
            for packet in encoder.push(wave[at : at + HOP]):
                if (delay_s := next(way)) is not None:
                    flying.append((now + delay_s, packet))
            flying.sort()
            while flying and flying[0][0] <= now:
                arrival_s, packet = flying.pop(0)
                decoder.push(packet, arrival_s * (1 + 1e-6 * drift))
            decoder.push(None, now * (1 + 1e-6 * drift))
            if tick % (ticks // 10) == 0:
                mb = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
                print(f"{now / 60:6.1f} min: {mb:.0f} MB, packets wait {decoder.depth_ms:.0f} ms")
    counts.update({name: count for name, count in asdict(decoder.stats).items() if count})
    print(
        dict(counts), f"{encoder.rate_kbps:.2f} kb/s, {1000 * (time.process_time() - start) / tick:.2f} ms CPU a frame"
    )


if __name__ == "__main__":
    app()
