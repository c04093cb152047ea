"""Features as arrays: right shapes and numbers, files and pipes, scikit-learn, and what happens with bad input."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import PACKAGE

from nacre.core.errors import AudioError, NacreError, StreamError, UsageError
from nacre.dsp import mel
from nacre.io import audio
from nacre.tools import features
from nacre.tools.features import FeatureExtractor, extract, from_file, pooled

ENGLISH = PACKAGE / "clips" / "english.flac"
DUTCH = PACKAGE / "clips" / "dutch.flac"
WIDTHS = {"latent": 8, "tokens": 8, "logmel": 80, "mfcc": 20}
POOLED = {"mean": 1, "stats": 3, "parts": 15}


# one recording


@pytest.mark.parametrize("kind", WIDTHS)
def test_frames(kind, speech, tiny, tiny_model):
    found = extract(speech, 16_000, kind, model=tiny_model)
    pace = features.frame_rate_hz(kind, tiny_model)
    assert found.shape[1] == WIDTHS[kind]
    assert abs(len(found) - len(speech) / 16_000 * pace) <= 1
    assert found.dtype == (np.int32 if kind == "tokens" else np.float32)
    wanted = {"latent": tiny.latents, "tokens": tiny.tokens}
    if kind in wanted:
        assert np.array_equal(found, wanted[kind](speech, 16_000).sounding)
    else:
        assert np.array_equal(found, getattr(mel, kind.replace("log", "log_"))(speech))


def test_level_is_heard(speech, tiny_model):
    for kind in ("latent", "tokens"):
        low, high = (extract(speech, 16_000, kind, model=tiny_model, level=level) for level in (0, 3))
        assert np.array_equal(high, extract(speech, 16_000, kind, model=tiny_model))
        assert not np.array_equal(low, high)
    assert features.level_of(tiny_model, "latent", None, 0) == 0
    assert features.level_of(tiny_model, "latent", None, 100) == 3
    assert features.level_of(tiny_model, "mfcc", None, None) is None


@pytest.mark.parametrize("kind", ["logmel", "mfcc", "latent"])
def test_rate_and_channels_of_the_sound_matter_little(kind, speech, tiny_model):
    wide = audio.Resampler(16_000, 48_000, 1)
    stereo = np.repeat(np.concatenate([wide.push(speech[None]), wide.flush()], 1), 2, axis=0)
    one, two = (
        extract(*sound, kind, "mean", model=tiny_model, mono=True) for sound in ((speech, 16_000), (stereo, 48_000))
    )
    assert np.abs(one - two).max() < 0.05 * np.abs(one).max()


@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize("kind", WIDTHS)
def test_pools(kind, pool, speech, tiny_model):
    row = extract(speech, 16_000, kind, pool, model=tiny_model)
    assert (row.shape, row.dtype) == ((POOLED[pool] * WIDTHS[kind],), np.float32)
    frames = extract(speech, 16_000, kind, model=tiny_model)
    assert np.array_equal(row, pooled(frames, pool))
    assert np.allclose(row[: WIDTHS[kind]], frames.mean(0), rtol=1e-4, atol=1e-4)


def test_what_pools_hold():
    frames = np.float32([[0, 1], [2, 1], [4, 1], [6, 1], [8, 1], [10, 1], [12, 1], [14, 1]])
    assert pooled(frames, "mean").tolist() == [7, 1]
    assert pooled(frames, "stats").tolist() == pytest.approx([7, 1, np.std(frames[:, 0]), 0, 2, 0])
    assert pooled(frames, "parts")[:6].tolist() == pooled(frames, "stats").tolist()
    assert pooled(frames, "parts")[6::6].tolist() == [1, 5, 9, 13]  # means of the quarters
    for count in (1, 2, 3, 5):
        assert np.isfinite(pooled(frames[:count], "parts")).all()
    assert pooled(frames[:1], "stats").tolist() == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("samples", [1, 100, 319, 321])
@pytest.mark.parametrize("kind", WIDTHS)
@pytest.mark.parametrize("amplitude", [0.0, 0.5])
def test_silence_and_shorter_than_a_frame(kind, samples, amplitude, tiny_model):
    wave = np.full(samples, amplitude, np.float32)
    assert len(extract(wave, 16_000, kind, model=tiny_model)) >= 1
    for pool in POOLED:
        assert np.isfinite(extract(wave, 16_000, kind, pool, model=tiny_model)).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "mel"}, "kind mel is unknown; choose from latent, tokens, logmel, mfcc"),
        ({"pool": "max"}, "pool max is unknown; choose from mean, stats, parts"),
        ({"kind": "mfcc", "level": 1}, "kind mfcc has no quality levels"),
        ({"level": 4}, "level must be 0 to 3, not 4"),
        ({"level": -1}, "level must be 0 to 3, not -1"),
        ({"model": "no-such-model"}, "no such model"),
    ],
)
def test_wrong_settings(arguments, words, speech, tiny_model):
    with pytest.raises(UsageError, match=words):
        extract(speech[:3200], 16_000, **({"model": tiny_model} | arguments))


@pytest.mark.parametrize("kind", WIDTHS)
@pytest.mark.parametrize(
    "wave", [np.zeros(0, np.float32), np.zeros(9, np.int16), np.float32([0, np.nan]), np.zeros((2, 2, 9))]
)
def test_wrong_waves(kind, wave, tiny_model):
    with pytest.raises(AudioError, match="wave"):
        extract(wave, 16_000, kind, model=tiny_model)


def test_wrong_frames_and_rates(speech, tiny_model):
    with pytest.raises(AudioError, match="100 Hz"):
        extract(speech, 100, "mfcc")
    for frames in (np.zeros((0, 3)), np.zeros(3)):
        with pytest.raises(UsageError, match=r"frames of shape .* cannot be pooled"):
            pooled(frames, "mean")
    with pytest.raises(UsageError, match="--level and --quality exclude"):
        features.level_of(tiny_model, "latent", 1, 50)
    with pytest.raises(UsageError, match="kind mfcc"):
        features.level_of(tiny_model, "mfcc", None, 50)


# files


def test_file_is_like_its_wave(speech, tiny_model):
    for kind in WIDTHS:
        assert np.array_equal(
            from_file(ENGLISH, kind, model=tiny_model), extract(speech, 16_000, kind, model=tiny_model)
        )


def test_nacre_file_is_what_it_decodes_to(speech, tiny, tiny_model, tmp_path):
    data = tiny.encode(speech, 16_000, quality=100)
    path = tmp_path / "a.nacre"
    path.write_bytes(data)
    wave, rate_hz = tiny.decode(data)
    assert np.array_equal(from_file(path, "mfcc", model=tiny_model), extract(wave, rate_hz, "mfcc"))
    path.write_bytes(data[:-9])
    with pytest.raises(AudioError, match=r"a\.nacre is damaged"):
        from_file(path, "mfcc", model=tiny_model)
    path.write_bytes(data[:20])
    with pytest.raises(StreamError, match=r"a\.nacre: the header is cut short"):
        from_file(path, "mfcc", model=tiny_model)
    path.write_bytes(data)
    with pytest.raises(StreamError, match=r"a\.nacre: the file is for model"):
        from_file(path, "mfcc")


def test_missing_and_bad_files(tmp_path, tiny_model):
    (tmp_path / "a.wav").write_text("no sound")
    for name, told in (("a.wav", "not a sound file"), ("none.wav", "No such file"), (".", "is a folder")):
        with pytest.raises(NacreError, match=told):
            from_file(tmp_path / name, model=tiny_model)


# the command


def test_command_writes_what_the_library_gives(nacre, tiny_model, tmp_path):
    for kind, width in WIDTHS.items():
        ran = nacre("features", ENGLISH, "-o", "a.npy", "-k", kind, "-m", tiny_model, "--force")
        code, said = ran.rc, ran.stderr
        found = np.load(tmp_path / "a.npy", allow_pickle=False)
        assert (code, found.shape[1]) == (0, width)
        assert np.array_equal(found, from_file(ENGLISH, kind, model=tiny_model))
        pace = {"latent": 50, "tokens": 50}.get(kind, 100)
        assert f"{kind} [{len(found)}, {width}] {found.dtype}, {pace} frames a second" in said.replace("\n", " ")


def test_command_pools_and_levels(nacre, tiny_model, tmp_path):
    ran = nacre("features", ENGLISH, "-o", "a.npy", "-m", tiny_model, "--pool", "stats", "--quality", 0)
    code, said = ran.rc, ran.stderr
    assert (code, "one row" in said) == (0, True)
    wanted = from_file(ENGLISH, "latent", "stats", model=tiny_model, level=0)
    assert np.array_equal(np.load(tmp_path / "a.npy"), wanted)
    assert nacre("features", ENGLISH, "-o", "b.npy", "-m", tiny_model, "--pool", "stats", "--level", 0).rc == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_many_files(nacre, tiny_model, tmp_path, jobs):
    clips = [ENGLISH, ENGLISH.with_name("dutch.flac"), tmp_path / "none.wav"]
    options = ("-k", "mfcc", "-m", tiny_model, "--jobs", jobs)
    ran = nacre("features", *clips, "-o", "folder", *options)
    code, said = ran.rc, ran.stderr
    assert (code, "1 of 3 files have errors" in said, "none.wav cannot be read" in said) == (1, True, True)
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["dutch.npy", "english.npy"]
    ran = nacre("features", *clips, "-o", "all.npz", *options, "--pool", "mean")
    code, said = ran.rc, ran.stderr
    assert (code, "1 of 3 files have errors" in said) == (1, True)
    with np.load(tmp_path / "all.npz", allow_pickle=False) as found:
        assert sorted(found) == ["dutch", "english"]
        assert np.array_equal(found["english"], from_file(ENGLISH, "mfcc", "mean"))
    ran = nacre("features", *clips[:2], "-o", "all.npz", *options, "--force", "-q")
    assert (ran.rc, ran.stderr) == (0, "")


def test_nacre_files_from_a_pipe(run, tiny, tiny_model, speech, tmp_path):
    data = tiny.encode(speech[:16_000], 16_000)
    (tmp_path / "a.nacre").write_bytes(data)
    found = run("features", "-", "-o", "-", "-m", tiny_model, stdin=data)
    assert found.rc == 0, found.stderr
    assert run("features", "a.nacre", "-o", "-", "-m", tiny_model).stdout == found.stdout


def test_pipes(run, tiny_model):
    found = run("features", "-", "-o", "-", "-k", "mfcc", stdin=ENGLISH.read_bytes())
    assert found.rc == 0, found.stderr
    assert np.array_equal(np.load(io.BytesIO(found.stdout)), from_file(ENGLISH, "mfcc"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.wav", "-o", "a.npy"), 1, "none.wav cannot be read (No such file"),
        ((ENGLISH, "-o", "a.npy", "-k", "mel"), 2, "kind mel is unknown"),
        ((ENGLISH, "-o", "a.npy", "--pool", "max"), 2, "pool max is unknown"),
        ((ENGLISH, "-o", "a.npy", "--level", 99), 2, "level must be 0 to 3, not 99"),
        ((ENGLISH, "-o", "a.npy", "--level", 1, "--quality", 9), 2, "--level and --quality exclude each other"),
        ((ENGLISH, "-o", "a.npy", "--quality", 101), 2, "quality must be 0 to 100, not 101"),
        ((ENGLISH, "-o", "a.npy", "-k", "mfcc", "--level", 1), 2, "kind mfcc has no quality levels"),
        ((ENGLISH, "-o", "a.txt"), 2, "--output a.txt must end in .npy or .npz"),
        ((ENGLISH, DUTCH, "-o", "a.npy"), 2, "--output a.npy names one file for 2 inputs"),
        ((ENGLISH, DUTCH, "-o", "-"), 2, "standard output cannot take the outputs of several inputs"),
        (("none.wav", "-o", "a.npz"), 1, "none.wav cannot be read"),
        ((ENGLISH, "-o", "/proc/no/a.npy"), 1, "cannot be made"),
        ((ENGLISH, "-o", "no/a.npz"), 1, "cannot be written"),
    ],
)
def test_bad_use(nacre, tiny_model, tmp_path, arguments, code, words):
    ran = nacre("features", *arguments, "-m", tiny_model)
    found, said = ran.rc, ran.stderr
    assert (found, words in said) == (code, True), said
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(nacre, tiny_model, tmp_path):
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_text("precious")
        ran = nacre("features", ENGLISH, "-o", name, "-m", tiny_model)
        code, said = ran.rc, ran.stderr
        assert (code, "use --force" in said) == (1, True)
        assert (tmp_path / name).read_text() == "precious"


# scikit-learn


def test_extractor_rows(speech, tiny_model):
    inputs = [ENGLISH, str(ENGLISH), speech, np.stack([speech, speech]), (speech, 16_000)]
    rows = FeatureExtractor(model=tiny_model).fit(inputs).transform(inputs)
    assert (rows.shape, rows.dtype) == ((5, 24), np.float32)
    assert np.allclose(rows, rows[0], rtol=1e-3, atol=1e-4)
    assert np.array_equal(rows[0], from_file(ENGLISH, "latent", "stats", model=tiny_model))
    frames = FeatureExtractor("mfcc", None).fit_transform([speech, speech[:1600]])
    assert [part.shape for part in frames] == [(1 + len(speech) // 160, 20), (11, 20)]
    assert FeatureExtractor("mfcc", "mean", rate_hz=8000).transform(speech[None, :8000]).shape == (1, 20)


@pytest.mark.parametrize("pool", POOLED)
def test_extractor_names(pool, tiny_model):
    extractor = FeatureExtractor("latent", pool, model=tiny_model)
    names = extractor.get_feature_names_out()
    assert len(set(names)) == len(names) == 8 * POOLED[pool]
    assert names[0] == "latent0_mean"
    with pytest.raises(UsageError, match="without a pool the number of columns is not fixed"):
        extractor.set_params(pool=None).get_feature_names_out()


def test_extractor_settings_and_pickle(speech, tiny_model):
    extractor = FeatureExtractor("tokens", "mean", 16_000, tiny_model, 2)
    rows = extractor.transform([speech])
    state = pickle.dumps(extractor)
    assert len(state) < 1000  # settings, no model
    again = pickle.loads(state)
    assert again.get_params() == extractor.get_params()
    assert np.array_equal(again.transform([speech]), rows)
    assert repr(FeatureExtractor("mfcc")).startswith("FeatureExtractor(kind='mfcc', pool='stats', rate_hz=16000")
    with pytest.raises(UsageError, match="setting colour is unknown"):
        extractor.set_params(colour=1)


def test_extractor_bad_input(speech):
    for settings in ({"kind": "mel"}, {"pool": "max"}, {"kind": "mfcc", "level": 1}):
        with pytest.raises(UsageError):
            FeatureExtractor(**settings).fit([speech])
        with pytest.raises(UsageError):
            FeatureExtractor(**settings).transform([speech])
    extractor = FeatureExtractor("mfcc")
    with pytest.raises(AudioError, match="recording 1: wave"):
        extractor.transform([speech, np.zeros(0, np.float32)])
    for nothing in ([], "talk.wav"):
        with pytest.raises(UsageError, match=r"recordings|single path"):
            extractor.transform(nothing)
    with pytest.raises(AudioError, match=r"none\.wav"):
        extractor.transform(["none.wav"])


def test_extractor_in_a_pipeline(speech, tiny_model):
    base = pytest.importorskip("sklearn.base")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pieces = [speech[start : start + 4000] for start in range(0, 80_000, 4000)]
    noises = [np.float32(np.random.default_rng(seed).normal(0, 0.1, 4000)) for seed in range(20)]
    labels = ["speech"] * 20 + ["noise"] * 20
    extractor = FeatureExtractor("latent", "stats", model=tiny_model)
    pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression())
    assert base.clone(extractor).get_params() == extractor.get_params()
    assert base.clone(pipeline).fit(pieces + noises, labels).score(pieces + noises, labels) > 0.9
    assert cross_val_score(pipeline, pieces + noises, labels, cv=4).mean() > 0.8
    pipeline.set_params(featureextractor__kind="mfcc").fit(pieces + noises, labels)
    assert pickle.loads(pickle.dumps(pipeline)).score(pieces + noises, labels) > 0.9


def test_package_needs_no_scikit_learn(environment):
    code = "import sys, nacre; nacre.features.FeatureExtractor(); assert 'sklearn' not in sys.modules"
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment | {"PATH": os.defpath}, check=False).returncode
        == 0
    )


def test_data_frames_where_they_are_asked_for(speech):
    pandas = pytest.importorskip("pandas")
    base = pytest.importorskip("sklearn.base")
    extractor = FeatureExtractor("mfcc", "mean").set_output(transform="pandas")
    recordings = pandas.Series([speech[:4000], speech[4000:9000]], index=["a", "b"])
    frame = base.clone(extractor).fit_transform(recordings)
    assert list(frame.columns) == extractor.get_feature_names_out().tolist()
    assert list(frame.index) == ["a", "b"]
    plain = FeatureExtractor("mfcc", "mean").fit_transform(recordings)
    np.testing.assert_array_equal(frame.to_numpy(), plain)
    assert isinstance(extractor.set_output(transform="default").transform(recordings), np.ndarray)
    with pytest.raises(UsageError, match="set_output"):
        extractor.set_output(transform="other")
