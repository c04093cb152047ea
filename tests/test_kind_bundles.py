"""Models of every kind without torch: graphs, stations, tokens, files, and what is wrong in them."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import once
from safetensors.numpy import load_file, save, save_file

pytest.importorskip("torch", exc_type=ImportError)

import torch
from test_kinds import SMALL_BOOKS, voice
from test_train import RARELY, Mine, tiny_recipe, trainer_of
from typer.testing import CliRunner

import nacre
from nacre.cli.main import application
from nacre.codec import encoder
from nacre.codec.codec import Codec
from nacre.core.config import CodecConfig
from nacre.core.errors import BundleError, NacreError, StreamError, UsageError
from nacre.dsp.gain import GAIN_ZERO
from nacre.dsp.mel import LogMelAnalyser
from nacre.dsp.offset import OffsetState, without_offset
from nacre.entropy import range_coder
from nacre.entropy.static_prior import TOTAL, StaticPrior, fit_counts, fit_indices
from nacre.format import file as container
from nacre.format.file import Header, Packet
from nacre.io import audio
from nacre.model import bundle as bundles
from nacre.quantise.base import FILE
from nacre.quantise.fsq import FiniteScalar
from nacre.quantise.gaussian import GaussianQuantiser
from nacre.quantise.rvq import ResidualVQ
from nacre.quantise.scalar import ScalarQuantiser
from nacre.torch import NacreCodec
from nacre.train import export as export_room
from nacre.train.nets.codec_net import CodecNet

pytestmark = pytest.mark.slow

CHANGES = {
    "gaussian": ("net.encoder=gru", "net.decoder=gru", "quantiser.rate_weight=0.5"),
    "rvq": (*SMALL_BOOKS, "net.encoder=lstm", "net.decoder=lstm"),
    "fsq": ("net.encoder=dense", "net.decoder=dense"),
    "autoencoder": ("net.norm=batch", "net.dropout=0.1", "codec.mel_bands=80", "codec.delay_samples=480"),
}
MADE = list(CHANGES)
OWN = ("gaussian", "rvq", "fsq")  # kinds with arrays of their own
HOP, GROUP = 320, 3200


@dataclass(frozen=True)
class Made:
    """A trained network and the model it became."""

    net: CodecNet
    folder: Path
    codec: Codec


class Noted(logging.Handler):
    """Keeps what the exporter says."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(scope="session")
def said() -> Iterator[list[str]]:
    """What was logged while models were made."""
    noted = Noted()
    for name in export_room.TALKATIVE:
        logging.getLogger(name).addHandler(noted)
    yield noted.lines
    for name in export_room.TALKATIVE:
        logging.getLogger(name).removeHandler(noted)


@pytest.fixture(scope="session")
def made(tmp_path_factory, speech, said) -> dict[str, Made]:
    """A model of each kind after a few steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root, corpus, found = tmp_path_factory.mktemp("kinds"), voice(speech), {}
    for kind, changes in CHANGES.items():
        recipe = tiny_recipe(*RARELY, "data.excerpt_s=0.3", f"kind={kind}", *changes)
        trainer = trainer_of(recipe, corpus)
        for _ in range(12):
            trainer.step()
        waves = trainer.sampler.batch(6, 2 * GROUP, (1, 2))
        facts = {"licence": "CC0-1.0", "training": {"recipe": asdict(recipe)}}
        export_room.export(trainer.run, waves, root / kind, kind, facts)
        found[kind] = Made(trainer.run.net, root / kind, nacre.load(root / kind))
    torch.set_num_threads(threads)
    return found


@pytest.fixture
def copy(made, tmp_path) -> Callable[[str], Path]:
    """`copy("rvq")` is a folder with that model, to be harmed."""

    def start(kind: str) -> Path:
        return Path(shutil.copytree(made[kind].folder, tmp_path / f"copy-{kind}"))

    return start


@pytest.fixture
def steady(monkeypatch) -> None:
    """Every group at gain 1."""
    monkeypatch.setattr(encoder, "choose_gain", lambda state, *_: (GAIN_ZERO, state))


def symbols_of(codec: Codec, data: bytes) -> np.ndarray:
    """Symbols [T, K] of a file of one channel."""
    contents = codec.parse(data)
    found = [group.symbols for _, _, groups in codec.decoder(contents).groups() for group in groups]
    return np.concatenate([symbols for symbols in found if symbols is not None])


# ---- graphs


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("kind", MADE)
def test_graphs_equal_networks_whole_and_in_pieces(made, kind, part):
    net, codec = made[kind].net, made[kind].codec
    graph = getattr(codec.model, f"{part}_net")
    rng = np.random.default_rng(5)
    frames = rng.standard_normal((31, graph.width_in)).astype(np.float32)
    for level in (0, 3):
        chosen, given = torch.tensor([level]), torch.from_numpy(frames[None])
        with torch.no_grad():
            if part == "encoder":
                theirs = net.quantiser.to_latent(net.encoder(given, chosen)[0], chosen)
            else:
                theirs = net.decoder(net.quantiser.from_latent(given, chosen), chosen)[0]
        whole, _ = graph.step(frames, level, graph.start())
        assert whole.dtype == np.float32
        np.testing.assert_allclose(whole, theirs[0].numpy(), atol=2e-3, rtol=2e-3)
        pieces, fresh, past = [], [], graph.start()
        for piece in np.split(frames, [1, 3, 13, 23]):
            out, past = graph.step(piece, level, past)
            pieces.append(out)
            fresh.append(graph.step(piece, level, graph.start())[0])
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=2e-5, rtol=1e-4)
        forgets = np.abs(np.concatenate(fresh) - whole).max() < 1e-4
        assert forgets == (kind == "fsq")  # dense: each frame by itself


@pytest.mark.parametrize("kind", OWN)
def test_the_torch_module_reads_every_kind_from_its_graphs(made, speech, kind):
    held = made[kind]
    net, wave = NacreCodec.from_pretrained(held.folder), speech[16_000 : 16_000 + 2 * GROUP]
    for names in held.net.quantiser.folded.values():
        for name in names:
            value = held.net.quantiser.get_parameter(name)
            torch.testing.assert_close(net.networks.bottleneck.get_parameter(name), value, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        found = net(torch.from_numpy(wave[None].copy()), level=3)
    tokens, latents = held.codec.tokens(wave, 16_000, 3), held.codec.latents(wave, 16_000, 3)
    np.testing.assert_allclose(found.encoded.latents[0, : len(latents)], latents.latents, atol=1e-4)
    same = found.quantised.tokens[0].numpy() == tokens.tokens
    assert same.mean() > 0.999
    if same.all():
        np.testing.assert_allclose(found.wave[0], held.codec.from_tokens(tokens), atol=1e-4)


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("kind", MADE)
def test_no_state_is_lost_between_groups(made, speech, kind):
    net, codec, wave = made[kind].net, made[kind].codec, speech[16_000 : 16_000 + 3 * GROUP + 5 * HOP]
    ready, _ = without_offset(OffsetState(), wave, HOP)
    theirs = net.latents(torch.from_numpy(ready[None]), 3)[0].numpy()
    np.testing.assert_allclose(
        codec.latents(wave, 16_000).sounding, codec.model.quantiser.unrounded(theirs, 3), atol=4e-3, rtol=4e-3
    )
    data = codec.encode(wave, 16_000, quality=100)
    latents = codec.model.quantiser.latents(symbols_of(codec, data), 3)
    if codec.config.mel_bands:  # sound is found again outside the networks
        assert codec.decode(data)[0].shape == (1, len(wave))
        return
    sound = net.decoded(torch.from_numpy(latents[None]), 3)[0].numpy()
    assert np.abs(sound).max() > 1e-3
    np.testing.assert_allclose(codec.decode(data)[0][0], sound[: len(wave)], atol=4e-3 * np.abs(sound).max())
    again = codec.from_latents(latents)
    np.testing.assert_allclose(again[: len(sound)], sound, atol=4e-3 * np.abs(sound).max())


def test_the_exporter_says_nothing(made, said):
    assert len(made) == len(MADE)
    assert said == []
    logging.getLogger(export_room.TALKATIVE[0]).warning("heard")
    assert said.pop() == "heard"  # the ear is open


def test_recurrent_cells_are_one_operator(made):
    onnx = pytest.importorskip("onnx")
    for kind, name in (("gaussian", "GRU"), ("rvq", "LSTM")):
        for part, cells in (("encoder", 1), ("decoder", 2)):
            graph = onnx.load(made[kind].folder / f"{part}.onnx").graph
            assert sum(node.op_type == name for node in graph.node) == cells
            assert not {"Loop", "Scan"} & {node.op_type for node in graph.node}


# ---- stations


@pytest.mark.parametrize("level", range(4))
def test_residual_station_equals_the_codebooks(made, speech, level):
    net, station = made["rvq"].net, made["rvq"].codec.model.quantiser
    wave, chosen = torch.from_numpy(speech[None, 16_000:32_000].copy()), torch.tensor([level])
    latents = net.latents(wave, level)
    with torch.no_grad():
        found = net.quantiser(latents, chosen)
    limits = np.full(4, 8, np.int32)
    symbols = station.symbols(latents[0].numpy(), level, limits)
    assert symbols.dtype == np.int32
    assert symbols.shape == (50, 4)
    assert station.used(level) == level + 1
    assert not symbols[:, level + 1 :].any()
    assert len(np.unique(symbols[:, : level + 1])) > 1  # how many depends on the processor that trained
    np.testing.assert_allclose(station.latents(symbols, level), found.latents[0].numpy(), atol=1e-5)
    left = latents[0].numpy()
    for book in range(level + 1):  # by distances, the long way
        low = left @ station.inward[book]
        index = np.square(low[:, None] - station.codes[book]).sum(2).argmin(1)
        np.testing.assert_array_equal(symbols[:, book], index - 8)
        left = left - station.codes[book][index] @ station.outward[book]


@pytest.mark.parametrize("level", range(4))
def test_finite_station_equals_the_rounding(made, speech, level):
    net, station = made["fsq"].net, made["fsq"].codec.model.quantiser
    latents = 3 * net.latents(torch.from_numpy(speech[None, 16_000:32_000].copy()), level)
    found = net.quantiser(latents, torch.tensor([level]))
    symbols = station.symbols(latents[0].numpy(), level, np.full(8, 2, np.int32))
    np.testing.assert_allclose(station.latents(symbols, level), found.latents[0].detach().numpy(), atol=1e-6)
    assert not symbols[:, 2 * level + 2 :].any()
    assert station.unrounded(latents[0].numpy(), level) == pytest.approx(
        (torch.tanh(latents) * net.quantiser._active(torch.tensor([level])))[0].numpy(), abs=1e-6
    )
    narrow = np.array([2, 1, 0, 2, 2, 2, 2, 2], np.int32)
    limited = station.symbols(latents[0].numpy(), level, narrow)
    np.testing.assert_array_equal(limited, np.clip(symbols, -narrow, narrow))


def test_steps_of_a_gaussian_model_are_the_posteriors_widths(made, speech):
    net, station = made["gaussian"].net, made["gaussian"].codec.model.quantiser
    np.testing.assert_array_equal(station.steps, net.quantiser.export_quantiser().steps)
    np.testing.assert_allclose(station.steps, np.sqrt(12) * net.quantiser.width.numpy(), rtol=1e-5)
    latents = net.latents(torch.from_numpy(speech[None, 16_000:32_000].copy()), 2)
    means = net.quantiser(
        net.encoder(net.analysis.spectra(torch.zeros(1, 320)), torch.tensor([2]))[0], torch.tensor([2])
    )
    assert means.latents.shape == (1, 1, 8)
    near = replace(station, rate_weight=0 * station.rate_weight)
    symbols = near.symbols(latents[0].numpy(), 2, np.full(8, 191, np.int32))
    away = near.latents(symbols, 2) - latents[0, :, :8].numpy()
    assert (np.abs(away) <= station.steps[2] / 2 + 1e-5).all()


def test_steps_of_an_autoencoder_follow_the_spread(made):
    net, station = made["autoencoder"].net, made["autoencoder"].codec.model.quantiser
    assert isinstance(station, ScalarQuantiser)
    np.testing.assert_allclose(station.steps, net.quantiser.export_quantiser().steps, rtol=1e-5)


def posterior(weight: float) -> tuple[GaussianQuantiser, np.ndarray, np.ndarray]:
    """A quantiser of one dimension with step 1, limits, and costs of -8..8 that rise from 0 outwards."""
    drawn = np.array([0, 0, 0, 0, 1, 3, 10, 60, 400, 60, 10, 3, 1, 0, 0, 0, 0], np.int64)
    prior = StaticPrior(fit_counts(drawn)[None, None])
    station = GaussianQuantiser(np.ones((1, 1), np.float32), np.array([weight], np.float32))
    return station, prior.limits(0), prior.costs(0)


def chosen(weight: float, means: list[float], sd: float) -> list[int]:
    station, limits, costs = posterior(weight)
    latents = np.array([[mean, np.log(sd)] for mean in means], np.float32)
    return station.symbols(latents, 0, limits, costs)[:, 0].tolist()


def test_a_wide_posterior_takes_the_cheaper_symbol():
    means = [0.4, 0.7, -1.2, 2.6, -3.4]
    nearest = [0, 1, -1, 3, -3]
    assert chosen(0.0, means, 3.0) == nearest
    assert chosen(1.0, means, 0.01) == nearest
    assert chosen(1.0, means, 20.0) == [0] * 5
    assert chosen(1.0, means, 0.5) == [0, 0, -1, 2, -3]
    _, _, costs = posterior(1.0)
    grid = np.linspace(-4, 4, 81).tolist()
    spent = [sum(costs[0, symbol + 8] for symbol in chosen(1.0, grid, sd)) for sd in (0.05, 0.3, 0.6, 1.0, 2.0)]
    assert (np.diff(spent) < 0).all()
    heavier = [sum(costs[0, symbol + 8] for symbol in chosen(weight, grid, 0.5)) for weight in (0, 0.5, 1, 2, 4)]
    assert (np.diff(heavier) < 0).all()


def test_the_choice_minimises_what_it_says():
    station, limits, costs = posterior(0.7)
    rng = np.random.default_rng(2)
    latents = np.stack([rng.normal(0, 2, 300), rng.normal(-1, 1, 300)], 1).astype(np.float32)
    symbols = station.symbols(latents, 0, limits, costs)[:, 0]

    def cost(symbol: np.ndarray) -> np.ndarray:
        away = (symbol - latents[:, 0]) ** 2 / (2 * np.exp(2 * latents[:, 1]))
        return away + 0.7 * np.log(2) * costs[0, symbol + 8]

    nearest = np.clip(np.round(latents[:, 0]), -limits, limits).astype(int)
    assert (cost(symbols) <= np.minimum(cost(nearest), cost(0 * nearest)) + 1e-4).all()
    assert (np.abs(symbols) <= np.abs(nearest)).all()
    assert (symbols != nearest).any()
    np.testing.assert_array_equal(station.symbols(latents, 0, limits)[:, 0], nearest)  # nothing known of costs


@pytest.mark.parametrize("kind", OWN)
def test_stations_are_saved_and_loaded_whole(made, tmp_path, kind):
    station = made[kind].codec.model.quantiser
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        station.save(tmp_path / name)
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()
    again = type(station).load(tmp_path / "a", {})
    latents = np.random.default_rng(1).standard_normal((9, station.width_in)).astype(np.float32)
    limits = made[kind].codec.model.static_prior.limits(3)
    np.testing.assert_array_equal(again.symbols(latents, 3, limits), station.symbols(latents, 3, limits))
    latents[4, 1] = np.nan
    with pytest.raises(NacreError, match="frame 4, dim 1"):
        station.symbols(latents, 3, limits)


# ---- tokens


@pytest.mark.parametrize("kind", ["rvq", "fsq"])
def test_tokens_of_every_level(made, speech, kind):
    codec, wave = made[kind].codec, speech[:20_001]
    entries = {"rvq": 16, "fsq": 5}[kind]
    for level in range(4):
        tokens, form = codec.tokens(wave, 16_000, level).tokens, codec.token_format(level)
        columns = {"rvq": level + 1, "fsq": 2 * level + 2}[kind]
        assert tokens.dtype == np.int32
        assert tokens.shape == (65, columns)
        assert form.alphabet.tolist() == [entries] * columns
        assert tokens.min() >= 0
        assert tokens.max() < entries
        assert form.frame_rate_hz == 50
        assert form.fixed_bits_per_s == pytest.approx(50 * columns * np.log2(entries))
        assert 0 < form.coded_bits_per_s <= form.fixed_bits_per_s * 1.001
    np.testing.assert_array_equal(codec.tokens(wave, 16_000), tokens)


@pytest.mark.parametrize("kind", MADE)
def test_tokens_are_what_the_file_holds_and_lead_back(made, speech, kind):
    codec, wave = made[kind].codec, speech[16_000 : 16_000 + 2 * GROUP]
    tokens = codec.tokens(wave, 16_000).tokens
    symbols = symbols_of(codec, codec.encode(wave, 16_000, quality=100))
    lowest, _ = codec.model.static_prior.ranges(3)
    np.testing.assert_array_equal(tokens[:20], (symbols - lowest)[:20, : tokens.shape[1]])
    for given in (tokens, tokens.astype(np.uint16), tokens.tolist()):
        sound = codec.from_tokens(given)
        assert sound.shape == (len(tokens) * HOP,)
        assert sound.dtype == np.float32
        np.testing.assert_array_equal(sound, codec.from_latents(codec.model.quantiser.latents(tokens + lowest, 3)))
    assert np.abs(sound).max() > 1e-4
    assert codec.from_tokens(codec.tokens(wave, 16_000, 0)).shape == wave.shape


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((5, 3), int), r"tokens must be integers \[T, 4\] at level 3, T above 0, not int64 of shape \(5, 3\)"),
        (np.zeros(4, int), r"integers \[T, 4\] .*, not int64 of shape \(4,\)"),
        (np.zeros((0, 4), int), r"T above 0, not int64 of shape \(0, 4\)"),
        (np.zeros((5, 4)), r"integers .*, not float64 of shape \(5, 4\)"),
        (np.array([[0, 1, 2, 3], [0, 16, 0, 0]]), "token of frame 1, column 1 must be 0 to 15, not 16"),
        (np.array([[0, 1, -1, 3]]), "token of frame 0, column 2 must be 0 to 15, not -1"),
        (np.array([[0, 1, 2**63, 3]], np.uint64), "column 2 must be 0 to 15, not 9223372036854775808"),
        (np.array([["a"] * 4]), r"integers .*, not <U1 of shape \(1, 4\)"),
    ],
)
def test_tokens_that_are_none(made, tokens, message):
    with pytest.raises(UsageError, match=message):
        made["rvq"].codec.from_tokens(tokens)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.zeros((5, 9)), r"numbers \[T, 8\].*, not float64 of shape \(5, 9\)"),
        (np.zeros((0, 8)), "T above 0"),
        (np.zeros(8), r"\[T, 8\]"),
        (np.full((2, 8), np.nan), "finite"),
        (np.full((2, 8), 1e300), "finite"),
        (np.array([["a"] * 8]), "not <U1"),
        (np.zeros((2, 8), complex), "not complex128"),
    ],
)
def test_latents_that_are_none(made, latents, message):
    with pytest.raises(UsageError, match=message):
        made["fsq"].codec.from_latents(latents)


@pytest.mark.parametrize("level", [-1, 4, 1.5, float("nan")])
def test_levels_that_are_none(made, speech, level):
    codec = made["rvq"].codec
    calls: list[Callable[[], Any]] = [
        lambda: codec.tokens(speech[:999], 16_000, level),
        lambda: codec.latents(speech[:999], 16_000, level),
        lambda: codec.token_format(level),
        lambda: codec.from_tokens(np.zeros((1, 4), int), level),
        lambda: codec.from_latents(np.zeros((1, 8)), level),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="level must be 0 to 3, not"):
            call()


def table(name: str) -> np.ndarray:
    """Numbers that are the same everywhere, in [-8, 8]."""
    return np.array([(37 * i * i + 11 * i + len(name)) % 17 - 8 for i in range(4096)], np.float32)


def golden_quantiser(kind: int) -> ResidualVQ | FiniteScalar:
    """All products and sums of the residual one are exact in float32, in any order."""
    if kind == FiniteScalar.code:
        return FiniteScalar(3, 6, np.array([4, 6], np.uint8))
    flat = table("codes")
    inward = (table("inward")[: 3 * 6 * 2] / 8).reshape(3, 6, 2)
    return ResidualVQ(
        (flat[: 3 * 10 * 2] / 4).reshape(3, 10, 2),
        inward,
        inward.transpose(0, 2, 1).copy(),
        np.array([2, 3], np.uint8),
        np.zeros(1, np.float32),
    )


def golden_file(kind: int) -> bytes:
    """A file of two groups, one a level, of 12 frames each."""
    station = golden_quantiser(kind)
    latents = (table("latents")[500 : 500 + 24 * 6] / 4).reshape(24, 6)
    entries = 10 if kind == ResidualVQ.code else 7
    reach = entries // 2
    counts = np.zeros((2, station.columns, 2 * reach + 1), np.int32)
    counts[:, :, reach] = TOTAL
    for level in range(2):
        for column in range(station.used(level)):
            counts[level, column] = 0
            counts[level, column, :entries] = fit_indices(np.arange(1, entries + 1)[:: 1 - 2 * level].astype(np.int64))
    prior, file = StaticPrior(counts), io.BytesIO()
    writer = container.Writer(file, Header(b"test", 16_000, 1, None, 12, kind))
    for level in range(2):
        symbols = station.symbols(latents[12 * level :][:12], level, prior.limits(level))
        payload = bytes([GAIN_ZERO]) + range_coder.encode(symbols, prior.tables(level))
        np.testing.assert_array_equal(range_coder.decode(payload[1:], 12, prior.tables(level)), symbols)
        writer.add(Packet(level, payload, range_coder.check_value(symbols, level, GAIN_ZERO)))
    writer.finish(24 * HOP)
    return file.getvalue()


GOLDEN = {
    ResidualVQ.code: "4e414352010374657374803e0001001e0000000cc8550c0084973d0c1eb927a1fa24b190d34ffe114020b453"
    "0c94258e475f9a55867404b9f98ec7e32d",
    FiniteScalar.code: "4e414352010474657374803e0001001e0000000c5f2d1100e4d09a0c81854c236127b58a22595df2c5ec2eeb"
    "1f40908c760cf9f5a043c205aafdb28701e8e409da20edd895382363ad0d7fea873a0d80",
}


@pytest.mark.parametrize("kind", list(GOLDEN), ids=str)
def test_token_files_are_the_same_to_the_last_bit(kind):
    assert golden_file(kind).hex() == GOLDEN[kind]


# ---- files


@pytest.mark.parametrize("kind", MADE)
def test_length_rate_and_channels_come_back(made, speech, kind):
    codec = made[kind].codec
    for samples, rate_hz, channels in ((1, 16_000, 1), (GROUP - 480, 16_000, 1), (6401, 16_000, 2), (7000, 44_100, 1)):
        wave = np.stack([speech[9000 * channel :][:samples] for channel in range(1, channels + 1)])
        for quality in (0, 100):
            out, out_hz = codec.decode(codec.encode(wave, rate_hz, quality=quality))
            assert (out.shape, out_hz, out.dtype) == (wave.shape, rate_hz, np.float32)
            assert np.isfinite(out).all()


@pytest.mark.parametrize("kind", MADE)
def test_packets_do_not_depend_on_the_pieces(made, speech, kind):
    codec, wave = made[kind].codec, speech[:11_111]
    whole, pieces = codec.encoder(16_000, quality=60), codec.encoder(16_000, quality=60)
    packets = list(itertools.chain.from_iterable(pieces.push(part) for part in np.split(wave, [1, 700, 4000, 9999])))
    assert packets + pieces.flush() == whole.push(wave) + whole.flush()


@pytest.mark.parametrize("kind", MADE)
def test_the_bundle_says_what_it_is(made, kind):
    facts, codec = json.loads((made[kind].folder / "model.json").read_text()), made[kind].codec
    assert codec.bundle.kind == {"gaussian": 2, "rvq": 3, "fsq": 4, "autoencoder": 1}[kind]
    assert (FILE in facts["sha256"]) == (kind in OWN) == (made[kind].folder / FILE).exists()
    assert ("steps" in facts) == (kind == "autoencoder")
    assert (codec.bundle.rates_kbps > 0).all()
    if kind == "rvq":
        assert facts["codebooks"]["entries"] == 16
        assert len(facts["codebooks"]["used"]) == len(facts["codebooks"]["perplexity"]) == 4
        assert all(1 / 16 <= used <= 1 for used in facts["codebooks"]["used"])
        assert all(1 <= value <= 16 for value in facts["codebooks"]["perplexity"])
    assert ("kl_kbps" in facts) == (kind == "gaussian")
    assert all(rate > 0 for rate in facts.get("kl_kbps", []))


@pytest.mark.parametrize("kind", MADE)
def test_the_command_line_takes_every_kind(made, speech, tmp_path, kind):
    source, target, back = tmp_path / "in.wav", tmp_path / "out.nacre", tmp_path / "back.wav"
    audio.write(source, speech[None, :9001], 16_000)
    model, runner = ("--model", str(made[kind].folder)), CliRunner()

    def run(*arguments: object) -> str:
        done = runner.invoke(application([]), [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    run("encode", source, "-o", target, "--quality", 50, *model)
    run("decode", target, "-o", back, *model)
    wave, rate_hz = audio.read(back)
    assert (wave.shape, rate_hz) == ((1, 9001), 16_000)
    facts = json.loads(run("info", target, "--json", *model))
    assert facts["kind"] == ("scalar" if kind == "autoencoder" else kind)
    assert "all good" in run("verify", target, *model)
    other = made["fsq" if kind == "rvq" else "rvq"].folder
    done = runner.invoke(application([]), ["decode", str(target), "-o", str(tmp_path / "x.wav"), "--model", str(other)])
    assert done.exit_code == 1
    assert not (tmp_path / "x.wav").exists()


def test_files_of_one_kind_are_refused_by_another(made, tiny, speech):
    codecs_by_kind = {kind: item.codec for kind, item in made.items()} | {"scalar": tiny}
    files = {kind: codec.encode(speech[:5000], 16_000, quality=50) for kind, codec in codecs_by_kind.items()}
    for ours, theirs in itertools.permutations(codecs_by_kind, 2):
        marks = [codecs_by_kind[kind].bundle.fingerprint.hex() for kind in (ours, theirs)]
        with pytest.raises(StreamError, match=f"the file is for model {marks[0]}, not for {marks[1]}"):
            codecs_by_kind[theirs].decode(files[ours])
    codec = codecs_by_kind["rvq"]
    header = container.unpack_header(files["rvq"])
    lying = container.pack_header(replace(header, kind=FiniteScalar.code)) + files["rvq"][container.HEADER_BYTES :]
    with pytest.raises(StreamError, match="model"):
        codec.decode(lying)


@pytest.mark.parametrize("kind", MADE)
def test_damage_is_found_in_files_of_every_kind(made, speech, kind):
    codec = made[kind].codec
    data = bytearray(codec.encode(speech[:12_000], 16_000, quality=100))
    at = container.HEADER_BYTES + container.HEAD_BYTES + container.CHECK_BYTES + 4
    data[at] ^= 0x55
    contents = codec.parse(bytes(data))
    assert [item.start_s for item in codec.verify(contents)] == [0.0]
    assert codec.decode(bytes(data))[0].shape == (1, 12_000)


# ---- models that lie


def seal(folder: Path, **changes: Any) -> None:
    """Make model.json fit the parts, as whoever meant harm would, with `changes` to its codec settings."""
    path = folder / "model.json"
    facts = json.loads(path.read_text())
    facts["codec"] |= changes
    facts["sha256"] = {name: bundles._hash(folder / name) for name in facts["sha256"]}
    config = CodecConfig.from_dict(facts["codec"])
    steps = facts["steps"] if facts["kind"] == ScalarQuantiser.code else []
    facts["fingerprint"] = bundles.fingerprint(config, facts["kind"], steps, facts["sha256"]).hex()
    path.write_text(json.dumps(facts))


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / FILE)


HOSTILE: list[tuple[str, Callable[[dict[str, np.ndarray]], dict[str, Any]]]] = [
    ("gaussian", lambda a: {"steps": 0 * a["steps"]}),
    ("gaussian", lambda a: {"steps": -a["steps"]}),
    ("gaussian", lambda a: {"steps": a["steps"] * np.float32(np.nan)}),
    ("gaussian", lambda a: {"steps": a["steps"] * np.float32(np.inf)}),
    ("gaussian", lambda a: {"steps": a["steps"].astype("<f8")}),
    ("gaussian", lambda a: {"steps": a["steps"][:3]}),
    ("gaussian", lambda a: {"steps": a["steps"][:3], "rate_weight": a["rate_weight"][:3]}),
    ("gaussian", lambda a: {"steps": a["steps"][:, :7]}),
    ("gaussian", lambda a: {"steps": a["steps"][:, :0]}),
    ("gaussian", lambda a: {"steps": a["steps"][0]}),
    ("gaussian", lambda a: {"rate_weight": a["rate_weight"] - 1}),
    ("gaussian", lambda a: {"rate_weight": a["rate_weight"] * np.float32(np.nan)}),
    ("gaussian", lambda a: {"rate_weight": a["rate_weight"][:1]}),
    ("gaussian", lambda a: {"rate_weight": None}),
    ("rvq", lambda a: {"codes": a["codes"] * np.float32(np.nan)}),
    ("rvq", lambda a: {"outward": a["outward"] + np.float32(np.inf)}),
    ("rvq", lambda a: {"codes": a["codes"][:, :1]}),
    ("rvq", lambda a: {"codes": a["codes"][:, :14]}),  # fewer than the tables have
    ("rvq", lambda a: {"codes": np.repeat(a["codes"], 2, 1)}),  # more than the tables have
    ("rvq", lambda a: {"codes": a["codes"][:3]}),
    ("rvq", lambda a: {"codes": a["codes"][..., :3]}),
    ("rvq", lambda a: {"codes": a["codes"][0]}),
    ("rvq", lambda a: {"codes": a["codes"][:0], "inward": a["inward"][:0], "outward": a["outward"][:0]}),
    ("rvq", lambda a: {"inward": a["outward"], "outward": a["inward"]}),
    ("rvq", lambda a: {"inward": np.repeat(a["inward"], 2, 1), "outward": np.repeat(a["outward"], 2, 2)}),
    ("rvq", lambda a: {"books": 0 * a["books"]}),
    ("rvq", lambda a: {"books": a["books"] + 1}),
    ("rvq", lambda a: {"books": a["books"][:3]}),
    ("rvq", lambda a: {"books": np.repeat(a["books"], 5)}),
    ("rvq", lambda a: {"books": a["books"].astype("<i8")}),
    ("rvq", lambda a: {"books": a["books"][:, None]}),
    ("rvq", lambda a: {"books": np.full(4, 4, np.uint8)}),  # more than the tables have codes for
    ("rvq", lambda a: {"codes": np.zeros((65, 16, 4), "<f4")}),
    ("rvq", lambda a: {"codes": np.zeros((4, 4097, 4), "<f4")}),
    ("rvq", lambda a: {"inward": np.zeros((4, 9000, 4), "<f4"), "outward": np.zeros((4, 4, 9000), "<f4")}),
    ("rvq", lambda a: {"rate_weight": np.array([-1], "<f4")}),
    ("rvq", lambda a: {"rate_weight": np.array([np.inf], "<f4")}),
    ("rvq", lambda a: {"rate_weight": np.array([np.nan], "<f4")}),
    ("rvq", lambda a: {"rate_weight": np.ones(2, "<f4")}),
    ("rvq", lambda a: {"rate_weight": None}),
    ("rvq", lambda a: {"codes": None}),
    ("fsq", lambda a: {"sizes": np.array([0, 8], "<u2")}),
    ("fsq", lambda a: {"sizes": np.array([128, 8], "<u2")}),
    ("fsq", lambda a: {"sizes": np.array([2, 7], "<u2")}),
    ("fsq", lambda a: {"sizes": np.array([2, 0], "<u2")}),
    ("fsq", lambda a: {"sizes": np.array([2, 65_535], "<u2")}),
    ("fsq", lambda a: {"sizes": np.array([2, 8, 8], "<u2")}),
    ("fsq", lambda a: {"sizes": np.array([2.0, 8.0], "<f4")}),
    ("fsq", lambda a: {"dims": a["dims"] + 1}),
    ("fsq", lambda a: {"dims": 0 * a["dims"]}),
    ("fsq", lambda a: {"dims": a["dims"][:2]}),
    ("fsq", lambda a: {"dims": None}),
]


@pytest.mark.parametrize(("kind", "change"), HOSTILE)
def test_hostile_quantisers_end_in_bundle_error(copy, kind, change):
    folder = copy(kind)
    seal(folder)
    nacre.load(folder)
    arrays = arrays_of(folder)
    arrays |= change(arrays)
    save_file({name: value.copy() for name, value in arrays.items() if value is not None}, folder / FILE)
    with pytest.raises(BundleError):
        nacre.load(folder)  # another file than model.json knows
    seal(folder)
    with pytest.raises(BundleError):
        nacre.load(folder)


@pytest.mark.parametrize("kind", OWN)
def test_what_is_no_quantiser_ends_in_bundle_error(copy, kind, tmp_path):
    folder, mark = copy(kind), tmp_path / "mark"
    path = folder / FILE
    good = path.read_bytes()
    others = [(copy(other) / FILE).read_bytes() for other in OWN if other != kind]
    huge = save({name: np.zeros(30_000_000, np.uint8) for name in arrays_of(folder)})
    objects = io.BytesIO()
    np.savez(objects, **{name: np.array([Mine(mark)], object) for name in arrays_of(folder)})
    for data in (
        b"",
        b"PK",
        good[:-30],
        good[: len(good) // 2],
        b"steps = 3",
        pickle.dumps(Mine(mark)),
        huge,
        objects.getvalue(),
        *others,
    ):
        path.write_bytes(data)
        seal(folder)
        with pytest.raises(BundleError, match=r"quantiser\.safetensors"):
            nacre.load(folder)
    assert not mark.exists()
    path.unlink()
    with pytest.raises(BundleError, match="is missing"):
        nacre.load(folder)


@pytest.mark.parametrize("kind", OWN)
def test_a_changed_byte_in_a_quantiser_is_found(copy, kind):
    folder, rng = copy(kind), np.random.default_rng(3)
    path = folder / FILE
    good = path.read_bytes()
    for trial in range(60):
        data = bytearray(good)
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        with pytest.raises(BundleError, match=r"quantiser\.safetensors is damaged .*copy the model again"):
            nacre.load(folder)
        if trial % 3:
            continue
        seal(folder)  # where the hash fits too, it is a quantiser or it is not
        with contextlib.suppress(BundleError):
            nacre.load(folder)
    path.write_bytes(good)
    seal(folder)
    nacre.load(folder)


LIES = [
    {"latent_dims": 7},
    {"levels": 3},
    {"levels": 5},
    {"hop_samples": 160},
    {"hop_samples": 640},
    {"step_samples": 320},
    {"window_samples": 320},
    {"window_samples": 10_240_000},
    {"delay_samples": 1},
    {"delay_samples": 10**7},
    {"group_frames": 255},
    {"rate_hz": 8000},
    {"rate_hz": 10**9},
    {"mel_bands": 40},
    {"mel_bands": 10**9},
    {"mel_bands": 0},
]


@pytest.mark.parametrize("kind", MADE)
def test_lies_in_settings_are_found_or_harmless(copy, speech, kind):
    folder = copy(kind)
    path = folder / "model.json"
    honest, refused = path.read_text(), 0
    harmless = {"delay_samples", "group_frames", "rate_hz"} | ({"window_samples"} if kind == "autoencoder" else set())
    for lie in LIES:
        path.write_text(honest)
        facts = json.loads(honest)
        if lie.items() <= facts["codec"].items() or lie == {"mel_bands": facts["codec"].get("mel_bands", 0)}:
            continue
        path.write_text(json.dumps(facts | {"codec": facts["codec"] | lie}))
        with pytest.raises(BundleError):
            nacre.load(folder)  # the fingerprint is another
        path.write_text(honest)
        seal(folder, **lie)
        try:
            codec = nacre.load(folder)
        except BundleError:
            refused += 1
            continue
        assert lie.keys() & harmless, lie  # another model, as good as the first
        wave = speech[None, :4001]
        assert codec.decode(codec.encode(wave, 16_000, quality=50))[0].shape == wave.shape
    assert refused >= 10


@pytest.mark.parametrize("kind", MADE)
def test_another_kind_in_model_json_is_refused(copy, kind):
    folder = copy(kind)
    path = folder / "model.json"
    facts = json.loads(path.read_text())
    for other in (0, 1, 2, 3, 4, 5, None, "rvq"):
        if other == facts["kind"]:
            continue
        lie = facts | {"kind": other}
        path.write_text(json.dumps(lie))
        with pytest.raises(BundleError):
            nacre.load(folder)
        if other in (2, 3, 4) and kind in OWN:  # with a fingerprint that fits
            path.write_text(json.dumps(lie))
            seal(folder)
            with pytest.raises(BundleError):
                nacre.load(folder)


@pytest.mark.parametrize("kind", OWN)
def test_tables_of_another_size_are_refused(copy, kind):
    folder = copy(kind)
    counts = StaticPrior.load(folder / bundles.PRIOR).counts
    wrong = [counts[:3], counts[:, :-1], np.concatenate([counts, counts[:, :1]], 1)]
    if kind == "rvq":
        holes = counts.copy()
        holes[3, 0] = 0
        holes[3, 0, 8] = TOTAL  # one index alone has a code
        wrong += [holes, np.pad(counts, ((0, 0), (0, 0), (1, 1)))]
    for table in wrong:
        StaticPrior(table).save(folder / bundles.PRIOR)
        seal(folder)
        with pytest.raises(BundleError):
            nacre.load(folder)
    StaticPrior(counts).save(folder / bundles.PRIOR)
    seal(folder)
    nacre.load(folder)


# ---- log-mel models


def test_a_log_mel_model_hears_what_the_analyser_gives(made, speech):
    codec = made["autoencoder"].codec
    c = codec.config
    assert (c.mel_bands, c.delay_samples, c.step_width) == (80, 480, 80)
    spectra = once(LogMelAnalyser(16_000, 640, 160, 2, 80), speech[:6400])
    assert codec.model.encoder_net.step(spectra, 0, codec.model.encoder_net.start())[0].shape == (20, 8)
    assert codec.from_latents(np.zeros((25, 8))).shape == (25 * HOP,)
