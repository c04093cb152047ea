"""Context prior: round trips, one answer whatever computes it, a decoder in plain integers, hostile bytes and files."""

import hashlib
import itertools
import os
import subprocess
import sys
import zipfile

import numpy as np
import onnxruntime
import pytest
from conftest import damaged, small_prior

from nacre.core.errors import BundleError, StreamError
from nacre.entropy import context_prior, range_coder
from nacre.entropy.context_prior import ContextPrior, Sizes
from nacre.entropy.symbols import ESCAPED, LARGEST


def speechlike(prior, frames, rng, spread=4.0):
    """[T, D] symbols, most small, some far out."""
    drawn = rng.laplace(0, spread, (frames, prior.sizes.dims)) * rng.choice([0.1, 1.0, 12.0], (frames, 1))
    return np.round(drawn).clip(-LARGEST, LARGEST).astype(np.int32)


def encode(prior, symbols, level):
    return range_coder.encode_symbols(prior.encoding(symbols, level))


def decode(prior, payloads, frames, level):
    return range_coder.serve(payloads, prior.decoding(level, frames))


@pytest.mark.parametrize("seed", range(6))
def test_round_trip_alone_and_side_by_side(seed):
    shape = [{}, {"depth": 1}, {"used": 9}, {"blocks": 1}, {"used": 1, "blocks": 1, "hidden": 1}, {"depth": 3}][seed]
    prior, rng = small_prior(seed, **shape), np.random.default_rng(seed)
    frames, levels = [13, 0, 50, 1, 50, 7], [0, 2, 1, 1, 0, 2]
    groups = [speechlike(prior, count, rng) for count in frames]
    payloads = [encode(prior, group, level) for group, level in zip(groups, levels, strict=True)]
    together = decode(prior, payloads, frames, levels)
    for group, found, data, count, level in zip(groups, together, payloads, frames, levels, strict=True):
        assert found.dtype == np.int32
        assert (found == group).all()
        assert (decode(prior, [data], [count], [level])[0] == group).all()
        assert 8 * len(data) <= prior.bits(group, level) * 1.001 + 16


def test_every_size_of_symbol_has_a_code():
    prior = small_prior()
    for size in (0, 1, 30, LARGEST):
        symbols = np.full((4, prior.sizes.dims), size, np.int32) * np.array([1, -1, 1, -1])[:, None]
        assert (decode(prior, [encode(prior, symbols, 1)], [4], [1])[0] == symbols).all()


@pytest.mark.parametrize(
    "symbols", [np.zeros(9, int), np.zeros((3, 8), int), np.zeros((3, 9)), np.full((1, 9), LARGEST + 1)]
)
def test_symbols_that_cannot_be_coded(symbols):
    with pytest.raises(StreamError):
        encode(small_prior(), symbols, 0)
    for level in (-1, 3):
        with pytest.raises(StreamError, match="level"):
            encode(small_prior(), np.zeros((1, 9), np.int32), level)
        with pytest.raises(StreamError, match="level"):
            decode(small_prior(), [b""], [1], [level])


class Bits:
    """The range decoder in Python's integers, for counts that sum to 2^28."""

    def __init__(self, data):
        self.stream, self.left = int.from_bytes(data + bytes(4096), "big"), 8 * (len(data) + 4096) - 64
        self.offset, self.size = self.stream >> self.left, (1 << 64) - 1

    def take(self, counts):
        assert sum(counts) == 1 << 28
        free, start, starts = (1 << 24) - len(counts), 0, []
        for index, count in enumerate(counts):
            starts.append((start * free >> 28) + index)
            start += count
        starts.append(1 << 24)
        share = self.size >> 24
        index = max(n for n in range(len(counts)) if starts[n] * share <= self.offset)
        self.offset -= starts[index] * share
        self.size = (starts[index + 1] - starts[index]) * share
        if self.size < 1 << 32:
            self.left -= 32
            self.offset = self.offset << 32 | self.stream >> self.left & 0xFFFFFFFF
            self.size <<= 32
        return index


def decode_in_integers(prior, data, frames, level):
    """The whole decoder once more from its description, in Python's integers, one number at a time."""
    sizes, a = prior.sizes, {name: array.tolist() for name, array in prior.arrays.items()}
    bits, used = Bits(data), range(sizes.used)

    def layer(inputs, weights, biases, shifts):
        sums = [sum(x * row[o] for x, row in zip(inputs, weights, strict=True)) + b for o, b in enumerate(biases)]
        return [min(max(total >> shift, 0), 127) for total, shift in zip(sums, shifts, strict=True)]

    def logarithm(symbol, ratio):
        size = a["logs"][min(abs(symbol) * ratio >> 4, 4095)]
        return -size if symbol < 0 else size

    def above(edge, narrow):
        steps = abs(edge) * narrow
        at = min(steps >> 8, context_prior.CURVE - 2)
        low = a["curve"][at] + ((a["curve"][at + 1] - a["curve"][at]) * min(steps - (at << 8), 256) >> 8)
        return (1 << 20) - low if edge < 0 else low

    def curve(width, place, centre, reach):
        edges = [8 * symbol - 4 - place for symbol in range(centre - reach, centre + reach + 2)]
        values = [above(edge, a["narrow"][width]) for edge in edges]
        return [one - two for one, two in itertools.pairwise(values)]

    def symbol(chosen, reach):
        place, width, weight, width_2, apart = chosen
        place, apart = min(max(place, -8 * 255), 8 * 255), min(max(apart, -256), 256)
        width, width_2, weight = (min(max(x, 0), top) for x, top in ((width, 47), (width_2, 47), (weight, 63)))
        centre, share = place >> 3, a["weight"][weight]
        one, two = curve(width, place, centre, reach), curve(width_2, place + apart, centre, reach)
        counts = [x * (256 - share) + y * share for x, y in zip(one, two, strict=True)]
        answer = bits.take([*counts, (1 << 28) - sum(counts)])
        return centre - reach + answer if answer < len(counts) else None

    before, last, older = a["start"][level], [0] * sizes.used, [0] * sizes.used
    sums, out = [[0] * sizes.used for _ in context_prior.PACES], np.zeros((frames, sizes.dims), np.int32)
    for frame in range(frames):
        values = last + older + [total >> 8 for row in sums for total in row]
        values = layer(values, a["w_in"], a["b_in"][level], a["s_in"])
        for weights, biases, shifts in zip(a["w_mid"], a["b_mid"], a["s_mid"], strict=True):
            values = layer(values, weights, biases, shifts)
        now, logs, start = [0] * sizes.used, [0] * sizes.used, 0
        for block, end in enumerate(a["ends"]):
            part = slice(block * sizes.small, (block + 1) * sizes.small)
            rows = [row[part] for row in a["w_block"] + a["w_frame"][:start]]
            small = layer(values + logs[:start], rows, a["b_block"][level][part], a["s_block"][part])
            escaped = []
            for dim in range(start, end):
                chosen = []
                for plane in range(context_prior.PLANES):
                    total = sum(x * row[plane][dim] for x, row in zip(small, a["w_out"], strict=True))
                    number = (total + a["b_out"][plane][dim]) >> a["s_out"][plane][dim]
                    number = number * a["mult"][level][plane][dim] + a["base"][level][plane][dim]
                    chosen.append(number + (a["follow"][level][dim] * before[dim] if plane == 0 else 0) >> 12)
                now[dim] = symbol(chosen, a["reach"][block])
                escaped += [dim] if now[dim] is None else []
            for dim in escaped:
                now[dim] = bits.take([1 << 19] * 512) - 256
            for dim in range(start, end):
                logs[dim] = logarithm(now[dim], a["ratio"][level][dim])
            start = end
        for plane, pace in enumerate(context_prior.PACES):
            for dim in used:
                value = abs(logs[dim]) if plane < 3 else logs[dim]
                sums[plane][dim] += (value * 256 - sums[plane][dim]) >> pace
        older, last, before = last, logs, now
        out[frame, a["order"]] = now
    others = [dim for dim in range(sizes.dims) if dim not in a["order"]]
    escaped = []
    for frame in range(frames):
        for row, dim in enumerate(others):
            answer = bits.take([count << 12 for count in a["tables"][level][row]])
            out[frame, dim] = answer - sizes.others // 2
            escaped += [(frame, dim)] if answer == sizes.others else []
    for place in escaped:
        out[place] = bits.take([1 << 19] * 512) - 256
    return out


@pytest.mark.parametrize("seed", range(4))
def test_the_same_decoder_in_plain_integers(seed):
    prior, rng = small_prior(seed), np.random.default_rng(seed)
    symbols = speechlike(prior, 12, rng)
    assert (decode_in_integers(prior, encode(prior, symbols, seed % 3), 12, seed % 3) == symbols).all()
    noise = rng.bytes(60)
    assert (decode_in_integers(prior, noise, 6, 1) == decode(prior, [noise], [6], [1])[0]).all()


def full_layer(inputs=305, outputs=96, seed=0):
    """The largest numbers a layer may meet: [M, I] activations at their limits, [I, O] weights at theirs."""
    rng = np.random.default_rng(seed)
    return rng.choice([-127, 127, 126, 1], (16, inputs)), rng.choice([-127, 127, -126, 3], (inputs, outputs))


def test_products_are_the_same_in_any_order_and_by_any_library():
    for inputs in (1, 305, 1040):
        x, w = full_layer(inputs)
        exact = x.astype(np.int64) @ w.astype(np.int64)
        x, w = x.astype(np.float32), w.astype(np.float32)
        assert (x @ w == exact).all()
        for seed in range(5):
            turn = np.random.default_rng(seed).permutation(inputs)
            assert (x[:, turn] @ w[turn] == exact).all()
        assert (np.add.reduce(x[:, :, None] * w, 1) == exact).all()
        assert (run_onnx(x, w) == exact).all()
    x, w = np.full((1, 1100), 127.0, np.float32), np.full((1100, 1), 127.0, np.float32)
    w[::2] = 126
    assert 127 * int(w.sum()) >= context_prior.EXACT  # beyond the limit nothing is promised: hence _check_sums


def run_onnx(x, w):
    helper = pytest.importorskip("onnx.helper")
    from onnx import TensorProto

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in (("x", x), ("w", w))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "w": w})[0]


def test_a_whole_prior_by_int64_and_onnx_products(monkeypatch):
    prior, rng = small_prior(1, hidden=64, small=32), np.random.default_rng(1)
    symbols = speechlike(prior, 20, rng)
    wanted = encode(prior, symbols, 2)

    class Other(np.ndarray):
        """A matrix whose products are made elsewhere."""

        def __rmatmul__(self, x):
            return make(np.asarray(x), np.asarray(self))

        __array_priority__, __array_ufunc__ = 100, None

    makers = [
        lambda x, w: (x.astype(np.int64) @ w.astype(np.int64)).astype(np.float32),
        lambda x, w: run_onnx(np.ascontiguousarray(x), np.ascontiguousarray(w)),
        lambda x, w: np.ascontiguousarray(x[:, ::-1]) @ np.ascontiguousarray(w[::-1]),
    ]
    for make in makers:
        other, used = ContextPrior(prior.sizes, prior.arrays), []
        layers = [(w.view(Other), bias, scale) for w, bias, scale in other._layers]
        blocks = [b._replace(w_frame=b.w_frame.view(Other), w_out=b.w_out.view(Other)) for b in other._blocks]
        for name, value in (("_layers", layers), ("_blocks", blocks), ("_w_block", other._w_block.view(Other))):
            other.__dict__[name] = value
        counted = make

        def make(x, w, counted=counted, used=used):
            used.append(1)
            return counted(x, w)

        assert encode(other, symbols, 2) == wanted
        assert used


def fingerprint():
    prior, rng = small_prior(2, hidden=128, small=64), np.random.default_rng(9)
    groups = [speechlike(prior, 50, rng) for _ in range(3)]
    payloads = [encode(prior, group, level) for level, group in enumerate(groups)]
    found = decode(prior, [*payloads, rng.bytes(300)], [50, 50, 50, 20], [0, 1, 2, 1])
    return hashlib.sha256(b"".join(payloads) + b"".join(x.tobytes() for x in found)).hexdigest()


def test_thread_count_changes_nothing():
    code = "import test_context; print(test_context.fingerprint())"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    for threads in "12":
        env = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == fingerprint()


def test_golden_bytes():
    symbols = speechlike(small_prior(), 30, np.random.default_rng(0))
    assert hashlib.sha256(encode(small_prior(), symbols, 1)).hexdigest()[:16] == "08a58f049aa117d0"


def test_any_bytes_decode_or_end_in_stream_error():
    prior, rng = small_prior(), np.random.default_rng(3)
    good = encode(prior, speechlike(prior, 10, rng), 0)
    for trial in range(150):
        data = rng.bytes(rng.integers(0, 200)) if trial % 2 else good[: rng.integers(len(good))] + rng.bytes(trial % 3)
        try:
            found = decode(prior, [data, good], [10, 10], [0, 0])
        except StreamError:
            continue
        assert (np.abs(found[0]) < ESCAPED).all()
        assert encode(prior, found[1], 0) == good


def test_file_round_trip(tmp_path):
    prior, symbols = small_prior(), speechlike(small_prior(), 9, np.random.default_rng(0))
    for name in ("a", "b"):
        prior.save(tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = ContextPrior.load(tmp_path / "a.safetensors")
    assert encode(again, symbols, 2) == encode(prior, symbols, 2)
    assert all(array.flags.c_contiguous for array in again.arrays.values())


def test_damaged_files_end_in_bundle_error(tmp_path):
    path = tmp_path / "p.safetensors"
    small_prior().save(path)
    refused = 0
    for data in damaged(path.read_bytes(), 300):
        path.write_bytes(data)
        try:
            ContextPrior.load(path)
        except BundleError:
            refused += 1
    assert refused > 150
    with pytest.raises(BundleError):
        ContextPrior.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["order"].__setitem__(0, a["order"][1]),
        lambda a: a["order"].__setitem__(0, 9),
        lambda a: a["ends"].__setitem__(0, 7),
        lambda a: a["ends"].__setitem__(-1, 6),
        lambda a: a["reach"].__setitem__(0, 0),
        lambda a: a["reach"].__setitem__(0, 256),
        lambda a: a["logs"].__setitem__(5, 128),
        lambda a: a["curve"].__setitem__(5, a["curve"][4] + 1),
        lambda a: a["narrow"].__setitem__(5, 0),
        lambda a: a["weight"].__setitem__(5, 257),
        lambda a: a["tables"].__setitem__((0, 0, 0), 6),
        lambda a: a["s_out"].__setitem__((0, 0), 25),
        lambda a: a["b_in"].__setitem__((0, 0), context_prior.EXACT - 100),
        lambda a: a["b_out"].__setitem__((0, 0), -context_prior.EXACT),
        lambda a: a.__setitem__("order", a["order"].astype("<i4")),
        lambda a: a.__setitem__("w_in", a["w_in"][1:]),
        lambda a: a.pop("w_mid"),
        lambda a: a.__setitem__("more", a["w_in"]),
    ],
)
def test_arrays_that_cannot_be_meant(change):
    arrays = {name: array.copy() for name, array in small_prior().arrays.items()}
    ContextPrior(small_prior().sizes, arrays)
    change(arrays)
    with pytest.raises(BundleError):
        ContextPrior(small_prior().sizes, arrays)


def test_sums_too_large_for_float32_are_refused():
    sizes = small_prior(hidden=1024, small=8)
    arrays = {name: array.copy() for name, array in sizes.arrays.items()}
    arrays["w_mid"][...] = 127
    ContextPrior(sizes.sizes, arrays | {"w_mid": arrays["w_mid"] - 1})
    with pytest.raises(BundleError, match="w_mid makes sums"):
        ContextPrior(sizes.sizes, arrays | {"b_mid": np.full_like(arrays["b_mid"], 300_000)})


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 9, 7, 3, 20, 10, 2, 3),
        (3, 9, 10, 3, 20, 10, 2, 3),
        (3, 9, 7, 8, 20, 10, 2, 3),
        (17, 9, 7, 3, 20, 10, 2, 3),
        (3, 9, 7, 3, 2000, 10, 2, 3),
        (3, 9, 7, 3, 20, 10, 2, 4),
    ],
)
def test_sizes_that_cannot_be_meant(sizes):
    with pytest.raises(BundleError):
        Sizes(*sizes)


def test_a_member_that_unpacks_to_much_is_refused_unread(tmp_path, monkeypatch):
    prior = small_prior()
    arrays = prior.arrays | {"w_in": np.zeros((50_000_000,), "i1")}
    np.savez_compressed(tmp_path / "bad.npz", sizes=np.array([3, 9, 7, 3, 20, 10, 2, 3], "<i4"), **arrays)
    read = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda self, info: pytest.fail("read") if info.file_size > 10**6 else read(self, info)
    )
    with pytest.raises(BundleError, match="50000128 bytes"):
        ContextPrior.load(tmp_path / "bad.npz")
