"""Every registered kind keeps the contract; a package that nacre knows nothing of adds one more."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nacre
from nacre.core.errors import BundleError, NacreError, StreamError, UsageError
from nacre.core.kinds import Registry
from nacre.format import file as container
from nacre.model import bundle as bundles
from nacre.quantise.base import Quantiser
from nacre.quantise.contract import check_quantiser
from nacre.quantise.fsq import FiniteScalar
from nacre.quantise.gaussian import GaussianQuantiser
from nacre.quantise.registry import KINDS, kind_of
from nacre.quantise.rvq import ResidualVQ
from nacre.quantise.scalar import ScalarQuantiser

RNG = np.random.default_rng(4)
STEPS = RNG.uniform(0.5, 2, (3, 6)).astype(np.float32)
INWARD = RNG.standard_normal((4, 6, 2)).astype(np.float32)
EXAMPLES: dict[str, Callable[[], Quantiser]] = {
    "scalar": lambda: ScalarQuantiser(np.round(STEPS, 3), np.full((3, 6), np.float32(0.125))),
    "gaussian": lambda: GaussianQuantiser(STEPS, np.float32([0, 0.1, 1])),
    "rvq": lambda: ResidualVQ(
        RNG.standard_normal((4, 9, 2)).astype(np.float32),
        INWARD,
        INWARD.transpose(0, 2, 1).copy(),
        np.uint8([1, 2, 4]),
        np.float32([0.1]),
    ),
    "fsq": lambda: FiniteScalar(3, 6, np.uint8([1, 3, 6])),
}

OUTSIDE = '''
"""A kind of an installed package: the sign of each dimension, times one size for all."""

import json

import numpy as np

from nacre.quantise.base import Quantiser, check_finite


class SignQuantiser(Quantiser):
    code, name, parts = 9, "sign", ("sign.json",)

    def __init__(self, size, dims, level_count):
        self.size, self.dims, self.level_count = size, dims, level_count

    @property
    def columns(self):
        return self.dims

    width_in = width_out = columns

    @property
    def levels(self):
        return self.level_count

    @property
    def entries(self):
        return 3

    def symbols(self, latents, level, limits, costs=None):
        check_finite(latents)
        return np.sign(latents).astype(np.int32)

    def latents(self, symbols, level):
        return np.float32(self.size) * symbols.astype(np.float32)

    def save(self, folder):
        (folder / "sign.json").write_text(json.dumps([self.size, self.dims, self.level_count]))
        return {}

    @classmethod
    def load(cls, folder, facts):
        return cls(*json.loads((folder / "sign.json").read_text()))
'''


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_keeps_the_contract(name, tmp_path):
    """A kind that is registered here has an example here."""
    quantiser = EXAMPLES[name]()
    assert kind_of(quantiser.code) is KINDS[name] is type(quantiser)
    assert quantiser.name == name
    check_quantiser(quantiser, tmp_path)


def test_the_contract_finds_what_breaks_it(tmp_path):
    class Drifting(ScalarQuantiser):
        def latents(self, symbols, level):
            return super().latents(symbols, level) + np.float32(len(symbols))

    with pytest.raises(AssertionError, match="given back by itself"):
        check_quantiser(Drifting(STEPS, np.zeros_like(STEPS)), tmp_path)


@pytest.fixture
def installed(tmp_path, monkeypatch) -> None:
    """The package of the kind `sign`, as pip would leave it."""
    (tmp_path / "signs.py").write_text(OUTSIDE)
    facts = tmp_path / "signs-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: signs\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[nacre.kinds]\nsign = signs:SignQuantiser\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(KINDS, "_items", dict(KINDS._items))
    monkeypatch.setattr(KINDS, "_loaded_packages", False)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_a_kind(tiny_model, tmp_path, speech):
    assert len(OUTSIDE.splitlines()) < 60
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    plain = bundles.load(tiny_model)
    sign = KINDS["sign"](1.5, 8, 4)
    (tmp_path / "empty").mkdir()
    check_quantiser(sign, tmp_path / "empty")
    facts = {name: value for name, value in plain.metadata.items() if name not in ("steps", "dead_zone")}
    bundles.save(folder, "signs", sign.code, plain.config, facts | sign.save(folder))
    codec = nacre.load(folder)
    data = codec.encode(speech[:20_000], 16_000, quality=50)
    assert container.unpack_header(data).kind == 9
    assert codec.decode(data)[0].shape == (1, 20_000)
    assert set(np.unique(codec.tokens(speech[:20_000], 16_000))) <= set(range(100))
    assert codec.verify(codec.parse(data)) == []


def test_a_kind_that_nobody_has(tiny, tiny_model, tmp_path, speech):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    text = (folder / "model.json").read_text().replace('"kind": 1', '"kind": 9')
    (folder / "model.json").write_text(text)
    with pytest.raises(BundleError, match="kind of latents 9 is none of 1 scalar, 2 gaussian, 3 rvq, 4 fsq"):
        bundles.load(folder)
    data = bytearray(tiny.encode(speech[:4000], 16_000))
    data[5] = 9
    data[20:22] = container.crc_hqx(bytes(data[:20]), 0).to_bytes(2, "little")
    with pytest.raises(StreamError, match="model"):
        tiny.parse(bytes(data))


def test_two_of_one_name():
    registry: Registry[object] = Registry("nacre.none", first=1)
    registry.add("second", 2)
    assert list(registry) == ["first", "second"]
    with pytest.raises(NacreError, match="two items called"):
        registry.add("first", 3)
    with pytest.raises(KeyError):
        registry["third"]


def test_errors_are_the_users():
    with pytest.raises((BundleError, UsageError)):
        kind_of(15)
