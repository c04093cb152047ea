"""Mutants of `.nacre` files by the hundred thousand: what the decoder makes of bytes that nobody meant to write.

Accidental damage: bytes changed, bursts, cuts, stretches lost or doubled. Hostile: heads and headers rewritten so that
their check values are right, packets moved between files, symbol checks set to what the symbols give.
"""

from __future__ import annotations

import json
import resource
import time
from binascii import crc_hqx
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import looped_speech, numbers

from nacre.core.errors import NacreError
from nacre.format.file import Packet, pack_header, pack_packet, unpack_header

RATE_HZ = 16_000
SLOW_S, LOUD = 5.0, 1.5
TINY = Path(__file__).resolve().parents[1] / "tests/data/tiny"


def originals(models: list[str], seconds: float, kbps: list[float]) -> list[tuple]:
    """(codec, bytes, symbols of every packet) of short files: rates, priors, one and two channels, sizes, silence."""
    import nacre

    found = []
    for model in models:
        codec = nacre.load(model)
        folder = Path(nacre.__file__).parent
        wave = np.concatenate(list(looped_speech(folder, 2 * seconds, RATE_HZ)))
        half = len(wave) // 2
        pair = np.stack([wave[:half], 0.5 * wave[:half]])
        hushed = np.concatenate([wave[: half // 2], np.zeros(half, np.float32)])
        ways = [(wave[:half], {"bitrate_kbps": rate}) for rate in kbps if fits(codec, rate)]
        ways += [(wave[:half], {"quality": 50, "prior": "static"}), (pair, {"quality": 40}), (hushed, {"quality": 30})]
        ways += [(wave[half:], {"packet_bytes": 200})]
        for sound, options in ways:
            data = codec.encode(sound, RATE_HZ, **options)
            found.append((codec, data, symbols_of(codec, codec.parse(data))))
    return found


def fits(codec, kbps: float) -> bool:
    rates = codec.model.rates_kbps if hasattr(codec.model, "rates_kbps") else codec.bundle.rates_kbps
    return bool(rates[0] <= kbps <= rates[-1])


def symbols_of(codec, contents) -> list:
    """Symbols of every packet, None for one that is lost or damaged."""
    found = []
    for _, _, held in codec.decoder(contents).groups():
        for group in held:
            good = not isinstance(group, Exception)
            found.append(group.symbols.tobytes() if good and group.symbols is not None else good)
    return found


def accident(data: bytes, random: np.random.Generator) -> bytes:
    """Damage as disks and links do it; the header stays, without which nothing is decoded."""
    hurt, way = bytearray(data), int(random.integers(6))
    at = int(random.integers(22, len(data)))
    if way == 0:  # single bytes
        for place in random.integers(22, len(data), int(random.integers(1, 4))):
            hurt[place] ^= int(random.integers(1, 256))
    elif way == 1:  # a bit
        hurt[at] ^= 1 << int(random.integers(8))
    elif way == 2:  # a burst
        size = int(random.integers(2, 64))
        hurt[at : at + size] = random.bytes(len(hurt[at : at + size]))
    elif way == 3:  # zeros
        size = int(random.integers(2, 512))
        hurt[at : at + size] = bytes(len(hurt[at : at + size]))
    elif way == 4:  # cut
        del hurt[at:]
    else:  # bytes lost, or some twice
        size = int(random.integers(1, 64))
        hurt[at:at] = hurt[at : at + size] if random.integers(2) else b""
        del hurt[at : at + size]
    return bytes(hurt)


def hostile(codec, data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Damage whose check values are right."""
    contents, way = codec.parse(data), int(random.integers(5))
    header, packets = unpack_header(data), [packet for packet in contents.packets if packet]
    if way == 0:  # a header that lies
        fields = bytearray(data[:20])
        fields[int(random.integers(4, 20))] = int(random.integers(256))
        return bytes(fields) + crc_hqx(bytes(fields), 0).to_bytes(2, "little") + data[22:]
    if way == 1:  # payloads of noise, their symbol checks made right where symbols come out
        index = int(random.integers(len(packets)))
        payload = bytes([int(random.integers(32))]) + random.bytes(int(random.integers(1, 900)))
        packets[index] = matching(codec, header, Packet(int(random.integers(16)), payload))
    elif way == 2:  # levels and lengths
        index = int(random.integers(len(packets)))
        old = packets[index]
        cut = int(random.integers(len(old.payload) + 1))
        packets[index] = Packet(int(random.integers(16)), old.payload[:cut], old.check if cut else 0)
    elif way == 3:  # packets of another file
        packets = packets + [packet for packet in codec.parse(other).packets if packet]
        random.shuffle(packets)
    else:  # heads alone, many of them
        packets = [Packet(int(random.integers(16)), b"") for _ in range(int(random.integers(1, 3000)))]
    return pack_header(header) + b"".join(pack_packet(packet) for packet in packets)


def matching(codec, header, packet: Packet) -> Packet:
    """The packet with the symbol check that its symbols have."""
    coder = codec.decoder(codec.parse(pack_header(header) + pack_packet(packet))).coder
    try:
        found = coder.unpack([packet], [header.group_frames])[0]
    except NacreError:
        return packet
    text = str(found)
    return (
        Packet(packet.level, packet.payload, int(text.split("found ")[1][:4], 16)) if "symbol check" in text else packet
    )


def main(
    count: Annotated[int, typer.Option(help="mutants")] = 1_000_000,
    seed: Annotated[int, typer.Option()] = 0,
    models: Annotated[str, typer.Option(help="names or folders, with commas")] = f"speech-16k,{TINY}",
    seconds: Annotated[float, typer.Option(help="of sound in each original")] = 1.2,
    kbps: Annotated[str, typer.Option()] = "1.5,3,6,12",
    sound: Annotated[float, typer.Option(help="share of the mutants whose sound is rendered, too")] = 0.02,
    limit_s: Annotated[float, typer.Option(help="stop after so long")] = 3600,
    out: Annotated[Path | None, typer.Option(help="JSON")] = None,
) -> None:
    """Decode mutants and count what comes of them."""
    files, random = originals(models.split(","), seconds, numbers(kbps)), np.random.default_rng(seed)
    counts, slowest, loudest, began = Counter(), (0.0, ""), 0.0, time.monotonic()
    for number in range(count):
        if time.monotonic() - began > limit_s:
            break
        which = int(random.integers(len(files)))
        codec, data, wanted = files[which]
        by_chance = bool(random.integers(2))
        other = files[int(random.integers(len(files)))]
        mutant = (
            accident(data, random)
            if by_chance
            else hostile(codec, data, other[1] if other[0] is codec else data, random)
        )
        kind, started = "accident" if by_chance else "hostile", time.process_time()
        counts[kind] += 1
        try:
            contents = codec.parse(mutant)
            found = symbols_of(codec, contents)
            if by_chance and not contents.lost and len(found) == len(wanted):
                wrong = sum(a != b and a is not False for a, b in zip(found, wanted, strict=True))
                counts["silently wrong groups"] += wrong
                counts["files with one"] += wrong > 0
            if random.random() < sound:
                peak = max(
                    (float(np.abs(block).max(initial=0)) for block in codec.decoder(contents).blocks()), default=0.0
                )
                loudest = max(loudest, peak)
                counts["rendered"] += 1
                counts["peaks over 1.5"] += peak > LOUD
        except NacreError:
            counts[f"{kind}: refused"] += 1
        except Exception as error:
            counts["foreign exceptions"] += 1
            print(f"mutant {number} of file {which}, {kind}: {error!r}", flush=True)
        took = time.process_time() - started
        counts["over 5 CPU seconds"] += took > SLOW_S
        slowest = max(slowest, (took, f"mutant {number}, {kind}"))
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {"seed": seed, "files": len(files), **counts, "slowest CPU s": round(slowest[0], 3), "which": slowest[1]}
    facts |= {
        "loudest peak": round(loudest, 3),
        "memory MB": round(memory_mb),
        "wall s": round(time.monotonic() - began),
    }
    for name, value in facts.items():
        print(f"{name}: {value}")
    if out:
        out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
