"""The container: round trips, and what is left of a file after cuts, flipped bytes, bursts and lies."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.core.errors import StreamError
from nacre.format import file as container
from nacre.format.file import Band, Contents, Coupling, Header, Packet, Writer, unpack

FORMAT_TEXT = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
GROUP_SAMPLES = 16_000
GOLDEN_HEADER = Header(b"\x0a\x0b\x0c\x0d", 16_000, 1, 48_000, 50)
GOLDEN_PACKETS = [Packet(3, b"\xaa\xbb", 0x1234), Packet(0, b""), Packet(15, b"\x7f", 0xFFFF)]

packets_st = st.one_of(
    st.builds(Packet, level=st.integers(0, 15), payload=st.just(b"")),
    st.builds(Packet, st.integers(0, 15), st.binary(min_size=1, max_size=60), st.integers(0, 0xFFFF)),
)
headers_st = st.builds(
    Header,
    fingerprint=st.binary(min_size=4, max_size=4),
    rate_hz=st.integers(8_000, 192_000),
    channels=st.integers(1, 8),
    samples=st.none() | st.integers(0, container.UNKNOWN_SAMPLES - 1),
    group_frames=st.integers(1, 255),
    kind=st.integers(1, 15),
) | st.builds(
    Header,
    fingerprint=st.binary(min_size=4, max_size=4),
    rate_hz=st.integers(8_000, 192_000),
    channels=st.just(2),
    samples=st.none() | st.integers(0, container.UNKNOWN_SAMPLES - 1),
    group_frames=st.integers(1, 255),
    kind=st.integers(1, 15),
    coupling=st.sampled_from(Coupling),
    band=st.sampled_from(Band),
)


class Pipe(io.BytesIO):
    """Cannot go back."""

    def seekable(self) -> bool:
        return False


def count_packets(header: Header, samples: int) -> int:
    return -(-samples // GROUP_SAMPLES) * header.channels


def write(packets: list[Packet], file: io.BytesIO, channels: int = 1) -> bytes:
    samples = len(packets) // channels * GROUP_SAMPLES
    writer = Writer(file, Header(b"test", 16_000, channels, None, 50))
    for packet in packets:
        writer.add(packet)
    writer.finish(samples)
    return file.getvalue()


def some_packets(count: int, largest_bytes: int, seed: int) -> list[Packet]:
    draw = random.Random(seed)
    sizes = [draw.choice((0, draw.randint(1, largest_bytes), largest_bytes)) for _ in range(count)]
    return [Packet(draw.randrange(16), draw.randbytes(n), draw.randrange(65536) if n else 0) for n in sizes]


def edges_of(packets: list[Packet]) -> list[int]:
    """Where each packet starts, and where the last stops: [P + 1]."""
    return list(itertools.accumulate((len(container.pack_packet(p)) for p in packets), initial=22))


def check_sums(contents: Contents, data: bytes) -> None:
    """Every byte is accounted for, and places exist only for bytes that are there."""
    assert contents.head_bytes + contents.payload_bytes + contents.skipped_bytes == len(data)
    assert contents.skipped_bytes >= 0
    assert contents.missing >= 0
    assert len(contents.packets) <= len(data) / 2


# Round trips


@given(headers_st)
def test_header_returns(header: Header) -> None:
    data = container.pack_header(header)
    assert len(data) == container.HEADER_BYTES
    assert container.unpack_header(data + b"more") == header


@given(packets_st)
def test_packet_returns(packet: Packet) -> None:
    assert container.unpack_packet(container.pack_packet(packet)) == packet


def test_largest_packet_returns() -> None:
    packet = Packet(15, bytes(container.MOST_PAYLOAD_BYTES), 0xFFFF)
    assert container.unpack_packet(container.pack_packet(packet)) == packet


@given(st.lists(packets_st, max_size=30), st.sampled_from((io.BytesIO, Pipe)))
def test_file_returns(packets: list[Packet], kind_of_file: type[io.BytesIO]) -> None:
    data = write(packets, kind_of_file())
    contents = unpack(data, count_packets)
    assert contents.packets == packets
    assert contents.samples == len(packets) * GROUP_SAMPLES
    assert (contents.missing, contents.lost, contents.truncated, contents.skipped_bytes) == (0, 0, False, 0)
    assert (contents.header.samples is None) == (kind_of_file is Pipe)
    check_sums(contents, data)


def test_writer_starts_where_the_file_stands() -> None:
    file = io.BytesIO()
    file.write(b"before")
    assert write(GOLDEN_PACKETS, file) == b"before" + write(GOLDEN_PACKETS, io.BytesIO())
    assert file.tell() == len(file.getvalue())


@pytest.mark.parametrize("more", [b"\0" * 50, b"NACR", write(GOLDEN_PACKETS, io.BytesIO())])
@pytest.mark.parametrize("kind_of_file", [io.BytesIO, Pipe])
def test_what_follows_the_end_is_left(more: bytes, kind_of_file: type[io.BytesIO]) -> None:
    contents = unpack(write(GOLDEN_PACKETS, kind_of_file()) + more, count_packets)
    assert contents.packets == GOLDEN_PACKETS
    assert (contents.truncated, contents.skipped_bytes) == (False, len(more))


# The bits, as the document has them


def test_golden_file_is_the_one_in_the_document() -> None:
    block = FORMAT_TEXT.split("## A small file, in full")[1].split("```")[1]
    golden = bytes.fromhex("".join(line.split("  ")[0] for line in block.strip().splitlines()))
    data = container.pack_header(GOLDEN_HEADER) + b"".join(map(container.pack_packet, GOLDEN_PACKETS))
    assert data.hex() == golden.hex()
    assert unpack(golden, count_packets).packets == GOLDEN_PACKETS


def test_golden_header_of_a_joined_pair() -> None:
    """An older reader refuses it by its kind, 17."""
    wanted = "4e414352 01 11 0a0b0c0d 803e00 02 80bb000000 32 93b1"
    header = replace(GOLDEN_HEADER, channels=2, coupling=Coupling.INTENSITY)
    assert container.pack_header(header) == bytes.fromhex(wanted)
    contents = unpack(bytes.fromhex(wanted) + b"".join(map(container.pack_packet, GOLDEN_PACKETS * 2)), count_packets)
    assert contents.intensity_groups == 0
    pairs = [Packet(3, b"\xaa", 0x1234), Packet(8, b""), *GOLDEN_PACKETS[:2], Packet(3, b""), Packet(1, b"")]
    assert replace(contents, packets=pairs).intensity_groups == 2
    assert replace(contents, header=GOLDEN_HEADER, packets=pairs).intensity_groups == 0


def test_costs_are_those_in_the_document() -> None:
    costs = dict(re.findall(r"^\| (\w[^|]*?) \| (\d+)[^|]*\|$", FORMAT_TEXT.split("## Cost")[1], re.M))
    measured = {
        "header": len(container.pack_header(GOLDEN_HEADER)),
        "packet": len(container.pack_packet(Packet(1, b"x" * 100, 7))) - 100,
        "packet of digital silence": len(container.pack_packet(Packet(1, b""))),
        "second packet of a group in intensity stereo": len(container.pack_packet(Packet(8, b""))),
        "end packet, into a pipe only": len(container.pack_end(0)),
    }
    assert {name: int(size) for name, size in costs.items()} == measured
    assert unpack(write(GOLDEN_PACKETS, Pipe()), count_packets).head_bytes == 22 + 5 + 3 + 5 + 10


def test_head_check_by_long_division() -> None:
    for word in (0, 1, 0x3FFFF, 0x15A5A, 100 | 3 << 14):
        rest = word << 6
        for bit in range(23, 5, -1):
            rest ^= (0b1011001 << (bit - 6)) if rest >> bit & 1 else 0
        assert container._head_checks()[word] == rest ^ 0x3F


def test_head_check_finds_every_change_of_three_bits() -> None:
    for count in (1, 2, 3):
        for bits in itertools.combinations(range(24), count):
            word = (0x12345 | container._head_checks()[0x12345] << 18) ^ sum(1 << bit for bit in bits)
            assert container._head_checks()[word & 0x3FFFF] != word >> 18, bits


def test_end_head_and_filler_bytes() -> None:
    assert f"`{container.pack_end(5)[:3].hex(' ')}`" in FORMAT_TEXT
    for filler in (b"\0", b"\xff"):
        assert container._packet_stop(filler * 99, 0, 99) is None


# Refusals


@pytest.mark.parametrize(
    ("at", "octets", "words"),
    [
        (0, b"RIFF", "not a nacre file: it begins with 'RIFF', not 'NACR'"),
        (4, b"\x03", "format version 3, but this nacre reads 1 and 2; use a newer nacre"),
        (10, b"\x81", "header is damaged"),
        (21, b"\xee", "header is damaged"),
    ],
)
def test_header_that_is_refused(at: int, octets: bytes, words: str) -> None:
    data = container.pack_header(GOLDEN_HEADER)
    with pytest.raises(StreamError, match=words):
        container.unpack_header(data[:at] + octets + data[at + len(octets) :])


@pytest.mark.parametrize(
    ("at", "octets", "words"),
    [
        (5, b"\0", "kind of latents must be 1 to 15, not 0"),
        (5, b"\x10", "kind of latents must be 1 to 15, not 0"),
        (5, b"\x21", "coupling must be 0 or 1, not 2; use a newer nacre"),
        (5, b"\x11", "intensity stereo needs 2 channels, not 1"),
        (4, b"\x02\x01", "band layer must be 1 or 2, not 0; use a newer nacre"),
        (5, b"\x41", "coupling must be 0 or 1, not 4"),
        (10, b"\0\0\0", "rate_hz must be 8000 to 192000, not 0"),
        (13, b"\x09", "channels must be 1 to 8, not 9"),
        (19, b"\0", "group_frames must be 1 to 255, not 0"),
    ],
)
def test_header_with_a_good_check_and_bad_values(at: int, octets: bytes, words: str) -> None:
    fields = container.pack_header(GOLDEN_HEADER)[:20]
    fields = fields[:at] + octets + fields[at + len(octets) :]
    with pytest.raises(StreamError, match=words):
        container.unpack_header(fields + container.crc_hqx(fields, 0).to_bytes(2, "little"))


def test_header_cut_or_flipped_anywhere_is_refused() -> None:
    data = container.pack_header(GOLDEN_HEADER)
    for at, flip in itertools.product(range(22), range(1, 256)):
        with pytest.raises(StreamError):
            unpack(data[:at], count_packets)
        with pytest.raises(StreamError):
            unpack(data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :], count_packets)


@pytest.mark.parametrize(
    "values",
    [
        (16, b"x", 0),
        (-1, b"x", 0),
        (0, bytes(container.MOST_PAYLOAD_BYTES + 1), 0),
        (0, b"x", 65536),
        (0, b"", 1),
    ],
)
def test_packet_that_cannot_be_written(values: tuple[int, bytes, int]) -> None:
    with pytest.raises(StreamError):
        Packet(*values)


@pytest.mark.parametrize("change", [{"fingerprint": b"abc"}, {"rate_hz": 7_999}, {"rate_hz": 192_001}]
    + [{"channels": 0}, {"channels": 9}, {"samples": -1}, {"samples": container.UNKNOWN_SAMPLES}]
    + [{"group_frames": 0}, {"group_frames": 256}]
    + [{"coupling": Coupling.INTENSITY, "channels": channels} for channels in (1, 3)])  # fmt: skip
def test_header_that_cannot_be_written(change: dict[str, object]) -> None:
    with pytest.raises(StreamError):
        Header(**(vars(GOLDEN_HEADER) | change))  # type: ignore[arg-type]


@given(st.binary(max_size=40))
def test_random_bytes_are_a_packet_or_an_error(data: bytes) -> None:
    with contextlib.suppress(StreamError):
        assert container.pack_packet(container.unpack_packet(data)) == data


# Cuts


@pytest.mark.parametrize("kind_of_file", [io.BytesIO, Pipe])
@pytest.mark.parametrize("channels", [1, 2])
def test_cut_at_every_byte(kind_of_file: type[io.BytesIO], channels: int) -> None:
    packets = some_packets(12, 40, seed=1)
    data = write(packets, kind_of_file(), channels)
    edges = edges_of(packets)
    for size in range(22, len(data)):
        whole = sum(edge <= size for edge in edges[1:])
        contents = unpack(data[:size], count_packets)
        assert contents.packets == packets[:whole], size
        assert contents.missing == (0 if kind_of_file is Pipe else 12 - whole), size
        assert contents.truncated == (kind_of_file is Pipe or whole < 12), size
        check_sums(contents, data[:size])


# Damage


def check_survivors(contents: Contents, packets: list[Packet], hit: set[int], where: object) -> None:
    """All packets but those hit are in their own places."""
    found = contents.packets + [None] * (len(packets) - len(contents.packets))
    assert len(found) == len(packets), where
    wrong = {place for place, packet in enumerate(packets) if found[place] != packet}
    assert wrong <= hit, where


@pytest.mark.parametrize("flip", [1, 2, 4, 8, 16, 32, 64, 128, 0x0F, 0x3C, 0xFF])
@pytest.mark.parametrize("kind_of_file", [io.BytesIO, Pipe])
def test_each_byte_flipped_costs_its_packet_only(flip: int, kind_of_file: type[io.BytesIO]) -> None:
    packets = some_packets(14, 40, seed=2)
    data = bytearray(write(packets, kind_of_file()))
    edges = edges_of(packets)
    for at in range(22, len(data)):
        data[at] ^= flip
        hit = {sum(edge <= at for edge in edges[1:])}
        contents = unpack(bytes(data), count_packets)
        check_survivors(contents, packets, hit, where=(at, flip))
        check_sums(contents, data)
        data[at] ^= flip


@pytest.mark.parametrize("channels", [1, 2])
def test_each_head_destroyed_in_a_file_of_usual_size(channels: int) -> None:
    packets = some_packets(60, 700, seed=3)
    data = write(packets, io.BytesIO(), channels)
    for place, edge in enumerate(edges_of(packets)[:-1]):
        contents = unpack(data[:edge] + b"\xff\xff\xff" + data[edge + 3 :], count_packets)
        check_survivors(contents, packets, {place}, where=place)
        assert contents.lost == 1
        assert contents.truncated == (place == 59)


def test_two_heads_destroyed() -> None:
    packets = some_packets(40, 300, seed=4)
    data = write(packets, io.BytesIO())
    edges = edges_of(packets)
    for one, two in itertools.combinations(range(0, 40, 3), 2):
        damaged = bytearray(data)
        damaged[edges[one] : edges[one] + 3] = damaged[edges[two] : edges[two] + 3] = bytes(3)
        between = set(range(one + 1, two)) if two - one <= 4 else set()  # a short chain between may be given up
        check_survivors(unpack(bytes(damaged), count_packets), packets, {one, two} | between, where=(one, two))


@pytest.mark.parametrize("filler", ["zeros", "random"])
@pytest.mark.parametrize("kind_of_file", [io.BytesIO, Pipe])
def test_a_burst_costs_the_packets_under_it(filler: str, kind_of_file: type[io.BytesIO]) -> None:
    packets = some_packets(60, 700, seed=5)
    data = write(packets, kind_of_file())
    edges = edges_of(packets)
    draw = random.Random(6)
    for _ in range(100):
        size = draw.randint(4, 8_000)
        first = draw.randint(22, edges[-1] - size)
        junk = bytes(size) if filler == "zeros" else draw.randbytes(size)
        hit = {p for p in range(60) if edges[p] < first + size and edges[p + 1] > first}
        contents = unpack(data[:first] + junk + data[first + size :], count_packets)
        check_survivors(contents, packets, hit, where=(first, size))


def test_bytes_left_out_or_put_in_the_middle() -> None:
    packets = some_packets(60, 700, seed=7)
    data = write(packets, io.BytesIO())
    edges = edges_of(packets)
    cut = data[: edges[20] + 1] + data[edges[24] + 2 :]
    check_survivors(unpack(cut, count_packets), packets, set(range(20, 25)), where="cut")
    grown = data[: edges[20]] + bytes(5_000) + data[edges[20] :]
    check_survivors(unpack(grown, count_packets), packets, set(), where="grown")


def test_a_false_length_does_not_hide_what_it_passes_over() -> None:
    packets = [Packet(5, random.Random(place).randbytes(50), place) for place in range(40)]
    data = write(packets, io.BytesIO())
    at = edges_of(packets)[10]
    for length in (1, 49, 51, 400, 401, len(data) - at - 5, 16_000):
        false = data[:at] + container._pack_head(length, 5) + data[at + 3 :]
        check_survivors(unpack(false, count_packets), packets, {10, 11}, where=length)


def test_unknown_count_takes_one_packet_as_lost() -> None:
    packets = some_packets(30, 300, seed=8)
    data = write(packets, Pipe())[:-10]
    at = edges_of(packets)[7]
    contents = unpack(data[:at] + bytes(3) + data[at + 3 :], count_packets)
    assert contents.packets == [*packets[:7], None, *packets[8:]]
    assert (contents.samples, contents.missing, contents.truncated) == (None, 0, True)


# Lies


@pytest.mark.parametrize("samples", [None, 0, 1, 10**6, container.UNKNOWN_SAMPLES - 1])
@given(tail=st.binary(max_size=4_000))
def test_random_bytes_after_a_header_are_contents(samples: int | None, tail: bytes) -> None:
    data = container.pack_header(Header(b"test", 16_000, 8, samples, 50)) + tail
    check_sums(unpack(data, count_packets), data)


@given(st.binary(max_size=200))
def test_random_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(StreamError):
        unpack(data, count_packets)


@given(st.lists(packets_st, max_size=40), st.randoms(use_true_random=False), st.integers(1, 10))
def test_any_damage_ends_in_contents(packets: list[Packet], draw: random.Random, wounds: int) -> None:
    data = bytearray(write(packets, draw.choice((io.BytesIO, Pipe))()))
    for _ in range(wounds if len(data) > 22 else 0):
        data[draw.randrange(22, len(data))] = draw.randrange(256)
    check_sums(unpack(bytes(data), count_packets), data)


@pytest.mark.parametrize("damage", [b"", b"\0\0\0"])
def test_a_count_beyond_reason_makes_no_places(damage: bytes) -> None:
    header = Header(b"test", 192_000, 8, container.UNKNOWN_SAMPLES - 1, 1)
    body = b"".join(map(container.pack_packet, GOLDEN_PACKETS)) + damage
    body += b"".join(map(container.pack_packet, GOLDEN_PACKETS * 3))
    contents = unpack(container.pack_header(header) + body, count_packets)
    assert len(contents.packets) == 12 + bool(damage)
    assert contents.missing == count_packets(header, container.UNKNOWN_SAMPLES - 1) - len(contents.packets)
    assert contents.truncated


def test_a_false_end_packet_is_not_followed() -> None:
    false = bytearray(container.pack_end(10**9))
    false[5] ^= 1
    contents = unpack(write(GOLDEN_PACKETS, Pipe())[:-10] + bytes(false), count_packets)
    assert (contents.packets, contents.samples) == (GOLDEN_PACKETS, None)


def test_an_end_packet_that_knows_no_count_is_none() -> None:
    count = b"\xff" * 5
    end = container.pack_end(0)[:3] + count + container.crc_hqx(count, 0).to_bytes(2, "little")
    contents = unpack(write(GOLDEN_PACKETS, Pipe())[:-10] + end, count_packets)
    assert (contents.packets, contents.samples) == (GOLDEN_PACKETS, None)


def test_heads_on_the_edge_of_a_block_are_seen() -> None:
    data = write(some_packets(20, 40, seed=10), io.BytesIO())
    whole = container._all_heads(data, len(data))
    for block_bytes in (1, 2, 3, 7, 100):
        assert (container._all_heads(data, len(data), block_bytes) == whole).all()


def test_a_megabyte_of_anything_ends() -> None:
    head = container.pack_header(Header(b"test", 16_000, 1, 10**9, 50))
    end_heads = container.pack_end(1)[:3] * 350_000
    for tail in (random.Random(9).randbytes(1 << 20), b"\x41" * (1 << 20), end_heads):
        check_sums(unpack(head + tail, count_packets), head + tail)
        unpack(container.pack_header(Header(b"test", 16_000, 1, None, 50)) + tail, count_packets)
