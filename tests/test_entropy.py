"""Range coder: round trips, cost over the ideal, golden bytes, damaged bytes, and a second decoder in integers."""

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.errors import BundleError, StreamError
from nacre.entropy import range_coder
from nacre.entropy.range_coder import check_value, decode, encode

TOTAL = 1 << 16


def make_tables(dims, reach, scale, seed=0):
    """[D, A] int32: Laplace-like rows, spreads growing to `scale`; every fifth row has a single symbol."""
    rng = np.random.default_rng(seed)
    sizes = np.abs(np.arange(-reach, reach + 1))
    tables = np.zeros((dims, 2 * reach + 1), np.int64)
    for dim in range(dims):
        top = 0 if dim % 5 == 4 else int(rng.integers(min(1, reach), reach + 1))
        share = np.where(sizes <= top, np.exp(-sizes / (scale * (dim + 1) / dims)), 0)
        tables[dim] = (sizes <= top) + np.floor(share / share.sum() * (TOTAL - 2 * top - 1))
        tables[dim, reach] += TOTAL - tables[dim].sum()
    return tables.astype(np.int32)


def draw(tables, frames, rng):
    """[T, D] int32 symbols as the tables expect them."""
    reach = tables.shape[1] // 2
    columns = [rng.choice(2 * reach + 1, size=frames, p=row / TOTAL) - reach for row in tables]
    return np.array(columns, np.int32).T.reshape(frames, len(tables))


def ideal_bits(symbols, tables):
    reach = tables.shape[1] // 2
    return -np.log2(tables[np.arange(len(tables)), symbols + reach] / TOTAL).sum()


def decode_in_integers(data, frames, tables):
    """The decoder once more from its description, in Python's integers: 24-bit shares, 64-bit range, 32-bit words."""
    stream, mask = int.from_bytes(data + bytes(8 + 4 * frames * len(tables)), "big"), (1 << 64) - 1
    left = 8 * (len(data) + 8 + 4 * frames * len(tables)) - 64
    offset, size = stream >> left, mask
    out = np.zeros((len(tables), frames), np.int32)
    for dim, row in enumerate(tables.tolist()):
        support = [i for i, count in enumerate(row) if count]
        free, total = (1 << 24) - len(support), sum(row)
        starts = [sum(row[:i]) * free // total + n for n, i in enumerate(support)] + [1 << 24]
        for frame in range(frames):
            index = 0
            if len(support) > 1:
                share = size >> 24
                index = max(n for n in range(len(support)) if starts[n] * share <= offset)
                offset -= starts[index] * share
                size = (starts[index + 1] - starts[index]) * share
                if size < 1 << 32:
                    left -= 32
                    offset, size = offset << 32 | stream >> left & 0xFFFFFFFF, size << 32
            out[dim, frame] = support[index] - len(row) // 2
    return out.T


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 60),
    st.integers(1, 12),
    st.integers(0, 20),
    st.sampled_from([0.05, 0.5, 3.0, 20.0]),
    st.integers(0, 99),
)
def test_round_trip(frames, dims, reach, scale, seed):
    tables = make_tables(dims, reach, scale, seed)
    symbols = draw(tables, frames, np.random.default_rng(seed))
    data = encode(symbols, tables)
    back = decode(data, frames, tables)
    assert back.dtype == np.int32
    assert np.array_equal(back, symbols)
    assert not data.endswith(b"\0")
    assert len(data) <= math.ceil(ideal_bits(symbols, tables) * 1.001 / 8) + 1


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(0, 9),
    st.sampled_from([0.05, 0.5, 3.0]),
    st.integers(0, 99),
)
def test_a_second_decoder_in_integers_agrees(frames, dims, reach, scale, seed):
    tables = make_tables(dims, reach, scale, seed)
    symbols = draw(tables, frames, np.random.default_rng(seed))
    assert (decode_in_integers(encode(symbols, tables), frames, tables) == symbols).all()


def test_unlikely_symbols_round_trip():
    tables = make_tables(8, 9, 0.05)
    highest = np.array([np.count_nonzero(row) // 2 for row in tables], np.int32)
    for symbols in (np.tile(highest, (50, 1)), np.tile(-highest, (50, 1))):
        assert (decode(encode(symbols, tables), 50, tables) == symbols).all()


@pytest.mark.parametrize(
    ("frames", "scale", "most_bytes", "over"), [(50, 4.0, 900, 0.002), (5, 4.0, 100, 0.02), (1, 4.0, 30, 0.1)]
)
def test_cost_over_the_ideal(frames, scale, most_bytes, over):
    tables, rng = make_tables(64, 20, scale), np.random.default_rng(7)
    sizes, ideals = [], []
    for _ in range(60):
        symbols = draw(tables, frames, rng)
        sizes.append(len(encode(symbols, tables)))
        ideals.append(ideal_bits(symbols, tables) / 8)
    assert most_bytes / 3 < np.mean(ideals) < most_bytes
    assert np.mean(sizes) < (1 + over) * np.mean(ideals), (np.mean(sizes), np.mean(ideals))
    assert np.max(np.array(sizes) - np.array(ideals)) < 1.5


def test_what_costs_nothing():
    single = np.array([[0, TOTAL, 0]] * 3, np.int32)
    assert encode(np.zeros((50, 3), np.int32), single) == b""
    assert decode(b"", 50, single).tolist() == [[0, 0, 0]] * 50
    tables = make_tables(4, 3, 1.0)
    assert encode(np.zeros((0, 4), np.int32), tables) == b""
    assert decode(b"", 0, tables).shape == (0, 4)


GOLDEN_TABLES = np.array(
    [
        [0, 6536, 42000, 17000, 0],
        [1, 2, 65530, 2, 1],
        [0, 0, 65536, 0, 0],
        [9536, 13000, 20000, 13000, 10000],
    ],
    np.int32,
)
GOLDEN_SYMBOLS = np.array(
    [[0, 0, 0, 2], [1, 0, 0, -2], [0, 0, 0, 0], [-1, 0, 0, 1], [0, 1, 0, -1], [1, 0, 0, 0], [0, 0, 0, 2]],
    np.int32,
)


def test_golden_bytes():
    assert encode(GOLDEN_SYMBOLS, GOLDEN_TABLES).hex() == "992d6f92a833"
    assert decode(bytes.fromhex("992d6f92a833"), 7, GOLDEN_TABLES).tolist() == GOLDEN_SYMBOLS.tolist()
    assert check_value(GOLDEN_SYMBOLS, 3, 200) == 0x1B90


def test_check_value_sees_what_it_covers():
    symbols = np.zeros((50, 8), np.int32)
    plain = check_value(symbols, 0, 0)
    assert 0 <= plain < 1 << 16
    assert len({plain, check_value(symbols, 1, 0), check_value(symbols, 0, 1), check_value(symbols[:49], 0, 0)}) == 4
    for place in np.ndindex(symbols.shape):
        changed = symbols.copy()
        changed[place] = -1
        assert check_value(changed, 0, 0) != plain
    with pytest.raises(StreamError):
        check_value(symbols, 256, 0)


def test_random_and_cut_bytes_end_in_symbols_or_stream_error():
    tables, rng = make_tables(16, 9, 2.0), np.random.default_rng(2)
    reach = np.count_nonzero(tables, axis=1) // 2
    good, refused = encode(draw(tables, 20, rng), tables), 0
    for trial in range(1500):
        data = rng.bytes(rng.integers(0, 200)) if trial % 2 else good[: rng.integers(len(good))] + rng.bytes(trial % 3)
        try:
            assert (np.abs(decode(data, 20, tables)) <= reach).all()
        except StreamError:
            refused += 1
    assert refused < 1500
    for data, frames in ((bytes(10_000), 20), (b"", -1), (b"\1", 0)):
        with pytest.raises(StreamError):
            decode(data, frames, tables)


def test_panics_of_the_coder_are_translated_and_interrupts_are_not():
    class PanicException(BaseException):
        pass

    with pytest.raises(StreamError), range_coder._translated():
        raise PanicException
    with pytest.raises(KeyboardInterrupt), range_coder._translated():
        raise KeyboardInterrupt


@pytest.mark.parametrize("symbols", [[[5, 0]], [[-5, 0]], [[0, 1]], [[0, 0, 0]], [0, 0], [[0.0, 0.0]], [[2**31, 0]]])
def test_symbols_that_cannot_be_coded(symbols):
    tables = np.array([[TOTAL // 4, TOTAL // 2, TOTAL // 4], [0, TOTAL, 0]], np.int32)
    with pytest.raises(StreamError):
        encode(np.array(symbols), tables)


@pytest.mark.parametrize(
    "rows",
    [
        [[TOTAL]] * 2 + [[TOTAL - 1]],
        [[-1, TOTAL + 1, 0]],
        [[1, 0, TOTAL - 1]],
        [[0, 0, 0]],
        [[0, 100, 0]],
        [TOTAL],
    ],
)
def test_tables_that_cannot_be_meant(rows):
    with pytest.raises(BundleError):
        decode(b"", 1, np.array(rows, np.int32))
    with pytest.raises(BundleError):
        encode(np.zeros((1, len(rows)), np.int32), np.array(rows, np.int64))


def test_tables_changed_in_place_are_noticed():
    tables = np.array([[TOTAL // 4, TOTAL // 2, TOTAL // 4]], np.int32)
    symbols = np.array([[0], [1]], np.int32)
    before = encode(symbols, tables)
    tables[0] = [TOTAL // 2, 1, TOTAL // 2 - 1]
    assert encode(symbols, tables) != before
    assert (decode(encode(symbols, tables), 2, tables) == symbols).all()


def fingerprint():
    tables, rng = make_tables(64, 20, 3.0), np.random.default_rng(9)
    payloads = [encode(draw(tables, 50, rng), tables) for _ in range(4)]
    symbols = [decode(data, 50, tables) for data in [*payloads, bytes(rng.bytes(40))]]
    return hashlib.sha256(b"".join(payloads) + np.array(symbols).tobytes()).hexdigest()


def test_thread_count_changes_nothing():
    code = "import test_entropy; print(test_entropy.fingerprint())"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    for threads in "12":
        env = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == fingerprint()
