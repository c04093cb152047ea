"""Networks that were trained with steps and priors frozen take their place in the model that they came from."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

from test_train import CLIPS, RARELY, corpus, exported, tiny_recipe, trained  # noqa: F401

from nacre.codec.codec import load
from nacre.core.errors import BundleError, TrainError
from nacre.model import bundle as bundles
from nacre.train import codec_trainer, start
from nacre.train.post.graft import export_networks

pytestmark = pytest.mark.slow

ALONE = ('stage=[{name="b", steps=3, train=["decoder"], warmup_steps=0}]', "codec.noise=true", "data.batch=2")


@pytest.fixture(scope="module")
def base(exported) -> bundles.Bundle:  # noqa: F811
    """The model that the runs begin from."""
    return bundles.load(exported)


@pytest.fixture(scope="module")
def grafted(base, tmp_path_factory) -> bundles.Bundle:
    """The same with a decoder that substitutes noise."""
    folder = tmp_path_factory.mktemp("graft")
    recipe = tiny_recipe(*RARELY, *ALONE)
    codec_trainer.train(recipe, CLIPS, folder / "run", quiet=True, begin=start.start_from(base))
    return export_networks(folder / "run", base.folder, folder / "model", "grafted")


def test_files_stay_the_same_and_are_read_by_the_other(base, grafted, speech):
    old, new = load(base.folder), load(grafted.folder)
    wave = speech[:40_000]
    before, after = (codec.encode(wave, 16_000, quality=50) for codec in (old, new))
    assert [p.payload for p in old.parse(before).packets] == [p.payload for p in new.parse(after).packets]
    assert base.fingerprint != grafted.fingerprint
    assert base.fingerprint in grafted.fingerprints
    np.testing.assert_array_equal(new.decode(before)[0], new.decode(after)[0])
    assert not np.array_equal(old.decode(before)[0], new.decode(before)[0])
    assert new.verify(new.parse(before)) == []


def test_an_encoder_comes_along_and_the_symbols_keep_their_meaning(base, speech, tmp_path):
    both = ALONE[0].replace('["decoder"]', '["encoder", "decoder"]')
    recipe = tiny_recipe(*RARELY, both, *ALONE[1:], "rate.hold=true")
    run = codec_trainer.train(recipe, CLIPS, tmp_path / "run", quiet=True, begin=start.start_from(base))
    found = export_networks(tmp_path / "run", base.folder, tmp_path / "model", "joint")
    old, new, wave = load(base.folder), load(found.folder), speech[:40_000]
    assert run.step == 3
    assert base.fingerprint in found.fingerprints
    assert old.encode(wave, 16_000)[16:] != new.encode(wave, 16_000)[16:]
    assert new.verify(new.parse(old.encode(wave, 16_000))) == []
    np.testing.assert_array_equal(old.model.quantiser.steps, new.model.quantiser.steps)


def test_a_run_that_trained_more_is_refused(base, trained, tmp_path):  # noqa: F811
    with pytest.raises(TrainError, match="wants the decoder, with or without"):
        export_networks(trained, base.folder, tmp_path / "model")


@pytest.mark.parametrize("reads", [{"static": ["12"]}, {"static": 7}, {"static": ["xxxxxxxx"]}, []])
def test_fingerprints_that_are_none_are_refused(grafted, tmp_path, reads):
    for part in grafted.folder.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    facts = json.loads((tmp_path / "model.json").read_text()) | {"reads": reads}
    (tmp_path / "model.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match="reads"):
        bundles.load(tmp_path)
