"""Files, folders and arguments made to do harm: the package's own errors, bounded memory and time."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import numpy as np
import pytest

import nacre
from nacre.core.errors import AudioError, BundleError, NacreError, StreamError, UsageError
from nacre.format import file as container
from nacre.format.file import Header, Packet, pack_header, pack_packet
from nacre.model import bundle as bundles
from nacre.model.runtime import REFUSED, Network


@pytest.fixture
def model(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    return folder


def rewritten(folder, **facts):
    """The settings of a model with others, hashes and fingerprint made right as far as that goes."""
    text = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(text | facts))
    return folder


@pytest.mark.parametrize("mark", REFUSED)
def test_graphs_with_loops_or_numbers_elsewhere_are_refused(model, mark):
    path = model / "decoder.onnx"
    path.write_bytes(path.read_bytes() + mark)
    with pytest.raises(BundleError, match="layers alone"):
        Network(path).open()


def test_huge_parts_are_refused_before_they_are_read(model, monkeypatch):
    monkeypatch.setattr(bundles, "LARGEST_PART_BYTES", 1000)
    with pytest.raises(BundleError, match="larger than"):
        nacre.load(model)


@pytest.mark.parametrize("name", ["rates_kbps", "steps", "dead_zone"])
def test_true_is_no_number(model, name):
    text = json.loads((model / "model.json").read_text())
    first = text[name][0]
    values = [[True, *first[1:]] if isinstance(first, list) else True, *text[name][1:]]
    with pytest.raises(BundleError):
        nacre.load(rewritten(model, **{name: values}))
    with pytest.raises(BundleError):
        nacre.load(rewritten(model, codec=text["codec"] | {"levels": True}))


class Lying:
    """A session that gives more, fewer, or other numbers than it should."""

    def __init__(self, session, change):
        self._session, self._change = session, change
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, names, feed):
        out, past = self._session.run(names, feed)
        return self._change(out.copy(), past.copy())


CHANGES = {
    "too many": lambda out, past: (np.concatenate([out, out], 1), past),
    "too few": lambda out, past: (out[:, :-1], past),
    "no number": lambda out, past: (out * np.float32("nan"), past),
    "infinite past": lambda out, past: (out, past + np.float32("inf")),
    "other past": lambda out, past: (out, past[:, :-1]),
    "wide": lambda out, past: (np.concatenate([out, out], 2), past),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("net", ["encoder_net", "decoder_net"])
def test_what_graphs_give_is_checked_at_every_step(tiny_model, speech, change, net):
    codec = nacre.load(tiny_model)
    data = codec.encode(speech[:9000], 16_000, quality=50)
    network = getattr(codec.model, net)
    network.__dict__["_session"] = Lying(network._session, CHANGES[change])
    with pytest.raises(BundleError, match="onnx gives"):
        codec.encode(speech[:9000], 16_000, quality=50) if net == "encoder_net" else codec.decode(data)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda codec, wave: codec.encode("wave", 16_000), AudioError),
        (lambda codec, wave: codec.encode(None, 16_000), AudioError),
        (lambda codec, wave: codec.encode([[1.0], [1.0, 2.0]], 16_000), AudioError),
        (lambda codec, wave: codec.encode(wave, "16000"), AudioError),
        (lambda codec, wave: codec.encode(wave, True), AudioError),
        (lambda codec, wave: codec.encode(wave, None), AudioError),
        (lambda codec, wave: codec.encode(wave, float("nan")), AudioError),
        (lambda codec, wave: codec.encode(wave, 16_000, bitrate_kbps="6"), UsageError),
        (lambda codec, wave: codec.encode(wave, 16_000, quality=True), UsageError),
        (lambda codec, wave: codec.encode(wave, 16_000, quality=float("nan")), UsageError),
        (lambda codec, wave: codec.encode(wave, 16_000, packet_bytes="9"), UsageError),
        (lambda codec, wave: codec.decode("name.nacre"), StreamError),
        (lambda codec, wave: codec.decode(None), StreamError),
    ],
)
def test_wrong_types_end_in_the_package_s_errors(tiny, speech, call, error):
    with pytest.raises(error):
        call(tiny, speech[:4000])


def test_any_bytes_will_do(tiny, speech):
    data = tiny.encode(speech[:4000], 16_000, quality=50)
    wave = tiny.decode(data)[0]
    for other in (bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(tiny.decode(other)[0], wave)


def test_codec_is_pickled_and_copied_as_its_folder(tiny, speech):
    data = tiny.encode(speech[:9000], 16_000, quality=50)
    pickled = pickle.dumps(tiny)
    assert len(pickled) < 1000
    for other in (pickle.loads(pickled), copy.copy(tiny), copy.deepcopy(tiny)):
        assert other.encode(speech[:9000], 16_000, quality=50) == data


def test_a_flood_of_heads_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(container, "MOST_PACKETS", 1000)
    head = pack_header(Header(tiny.bundle.fingerprint, 16_000, 1, None, 10))
    flood = pack_packet(Packet(1, b"")) * 2000
    for data in (head + flood, head + flood[:900] + b"x" + flood):
        with pytest.raises(StreamError, match="more than 1000 packets"):
            tiny.parse(data)
    assert len(tiny.parse(head + flood[:2700]).packets) == 900


def test_decode_and_verify_agree_on_cut_files(nacre, tiny_model, tiny, tmp_path, speech):
    """Cut anywhere, with a known count and without."""
    (tmp_path / "a.nacre").write_bytes(whole := tiny.encode(speech[:32_000], 16_000, quality=50))
    piped = pack_header(Header(tiny.bundle.fingerprint, 16_000, 1, None, 10)) + whole[22:] + container.pack_end(32_000)
    for data in (whole, piped):
        for cut in np.linspace(22, len(data), 12).astype(int).tolist():
            (tmp_path / "a.nacre").write_bytes(data[:cut])
            codes = [nacre("verify", "a.nacre", "-m", tiny_model).rc]
            codes.append(nacre("decode", "a.nacre", "-o", "a.wav", "-f", "-m", tiny_model).rc)
            assert codes == [int(cut < len(data))] * 2, cut


def test_every_error_has_one_base():
    assert all(issubclass(error, NacreError) for error in (AudioError, BundleError, StreamError, UsageError))
