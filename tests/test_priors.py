"""Static prior: fitted tables, their checks, ideal bits and the file."""

import io
import zipfile

import numpy as np
import pytest
from conftest import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.errors import BundleError, StreamError
from nacre.entropy.static_prior import TOTAL, StaticPrior, fit_counts


def small_prior(levels=2, dims=5, reach=7, seed=3):
    rng = np.random.default_rng(seed)
    counts = np.zeros((levels, dims, 2 * reach + 1), np.int32)
    for level, dim in np.ndindex(levels, dims):
        drawn = np.round(rng.laplace(0, 0.3 + dim, 400)).clip(-reach, reach).astype(int)
        counts[level, dim] = fit_counts(np.bincount(drawn + reach, minlength=2 * reach + 1))
    counts[0, 0] = 0
    counts[0, 0, reach] = TOTAL  # one dim of a single symbol
    return StaticPrior(counts)


@settings(deadline=None)
@given(st.integers(0, 64).flatmap(lambda r: st.lists(st.integers(0, 10**9), min_size=2 * r + 1, max_size=2 * r + 1)))
def test_fitted_tables_sum_and_support(values):
    histogram = np.array(values, np.int64)
    reach = len(values) // 2
    counts = fit_counts(histogram)
    assert counts.dtype == np.int32
    assert counts.sum() == TOTAL
    inside = np.flatnonzero(counts) - reach
    seen = np.abs(np.flatnonzero(histogram) - reach).max(initial=0)
    single = seen == 0 and histogram.sum() >= TOTAL
    top = 0 if single else min(seen + 1, reach)
    assert inside.tolist() == list(range(-top, top + 1))
    StaticPrior(counts[None, None])


def test_fit_follows_much_data_and_smooths_little():
    histogram = np.array([0, 10_000, 50_000, 30_000, 10_000])
    assert np.abs(fit_counts(histogram)[1:] / TOTAL - histogram[1:] / 100_000).max() < 0.001
    few = fit_counts(np.array([0, 0, 0, 1, 0, 0, 0]))
    assert few[3] < 0.9 * TOTAL
    assert min(few[2], few[4]) > 1000
    assert abs(few[2] - few[4]) <= 1
    gap = fit_counts(np.array([0, 5, 0, 0, 90, 0, 0, 5, 0]))
    assert gap[2] < gap[3] / 2
    assert (gap[1:-1] > 200).all()  # symbols between seen ones are not starved


def test_fit_is_near_the_entropy_of_the_source():
    rng = np.random.default_rng(5)
    for scale in (0.3, 1.0, 4.0):
        drawn = np.round(rng.laplace(0, scale, 6000)).astype(int)
        prior = StaticPrior(fit_counts(np.bincount(drawn[:3000] + 64, minlength=129))[None, None])
        other = drawn[3000:].clip(-prior.limits(0), prior.limits(0))[:, None]
        own = np.unique(other, return_counts=True)[1]
        entropy = -(own * np.log2(own / own.sum())).sum()
        assert prior.bits(other, 0) < 1.02 * entropy + 16, (scale, prior.bits(other, 0) / entropy)


@pytest.mark.parametrize("bad", [np.zeros(4, int), np.zeros((3, 3), int), np.array([1, -1, 0])])
def test_histograms_that_cannot_be_meant(bad):
    with pytest.raises(BundleError):
        fit_counts(bad)


def test_limits_and_bits():
    counts = np.array([[[0, TOTAL // 4, TOTAL // 2, TOTAL // 8, TOTAL // 8], [0, 0, TOTAL, 0, 0]]], np.int32)
    prior = StaticPrior(counts)
    assert prior.limits(0).tolist() == [1, 0]
    assert prior.limits(0).dtype == np.int32
    assert prior.bits(np.array([[0, 0], [-1, 0], [2, 0]]), 0) == 1 + 2 + 3
    assert prior.bits(np.array([[-2, 0]]), 0) == prior.bits(np.array([[3, 0]]), 0) == float("inf")
    assert prior.bits(np.zeros((0, 2), int), 0) == 0
    for level in (-1, 1):
        with pytest.raises(StreamError, match="level"):
            prior.tables(level)
    with pytest.raises(ValueError, match="read-only"):
        prior.counts[0, 0, 0] = 1


@pytest.mark.parametrize(
    "rows",
    [
        [[TOTAL]],  # not [L, D, A]
        [[[TOTAL // 2, TOTAL // 2]]],  # even alphabet
        [[[0, TOTAL - 1, 0]]],
        [[[-1, TOTAL + 1, 0]]],
        [[[0, 0, TOTAL]]],  # symbol 0 without a code
        [[[1, 0, TOTAL - 3, 1, 1]]],  # a gap
        np.zeros((1, 0, 3)),
        np.zeros((17, 1, 1)) + TOTAL,
    ],
)
def test_tables_that_cannot_be_meant(rows):
    with pytest.raises(BundleError):
        StaticPrior(np.array(rows, np.int32))


def test_file_round_trip_and_size(tmp_path):
    small_prior().save(tmp_path / "a.safetensors")
    small_prior().save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (StaticPrior.load(tmp_path / "a.safetensors").counts == small_prior().counts).all()
    full = small_prior(levels=16, dims=64, reach=64)
    full.save(tmp_path / "full.safetensors")
    assert (StaticPrior.load(tmp_path / "full.safetensors").counts == full.counts).all()
    assert (tmp_path / "full.safetensors").stat().st_size < 250_000


def test_damaged_files_end_in_bundle_error(tmp_path):
    path = tmp_path / "p.safetensors"
    small_prior().save(path)
    outcomes = {"loaded": 0, "refused": 0}
    for data in damaged(path.read_bytes(), 400):
        path.write_bytes(data)
        try:
            StaticPrior.load(path)
            outcomes["loaded"] += 1
        except BundleError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 200
    with pytest.raises(BundleError):
        StaticPrior.load(tmp_path / "absent.safetensors")


def members(**changes):
    arrays = {
        "alphabet": np.array([3], "<u2"),
        "below": np.ones((1, 2), "u1"),
        "above": np.ones((1, 2), "u1"),
        "inside": np.array([1, TOTAL - 2, 1] * 2, "<u2"),
    }
    return arrays | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"inside": np.ones(5, "<u2")},
        {"inside": np.ones(6, "<u2")},
        {"inside": np.ones(6, "<u4")},
        {"inside": np.array([{}], object)},
        {"below": np.full((1, 2), 9, "u1")},
        {"below": np.ones((2, 1), "u1")},
        {"below": np.ones(2, "u1")},
        {"below": np.ones((17, 1), "u1"), "above": np.ones((17, 1), "u1")},
        {"below": np.ones((0, 2), "u1"), "above": np.ones((0, 2), "u1")},
        {"alphabet": np.array([4], "<u2")},
        {"alphabet": np.array([65_535], "<u2")},
        {"alphabet": np.array([3, 3], "<u2")},
    ],
)
def test_hostile_members_end_in_bundle_error(tmp_path, changes):
    np.savez_compressed(tmp_path / "ok.npz", **members())
    StaticPrior.load(tmp_path / "ok.npz")
    np.savez_compressed(tmp_path / "bad.npz", **members(**changes))
    with pytest.raises(BundleError):
        StaticPrior.load(tmp_path / "bad.npz")


def test_a_member_that_unpacks_to_much_is_refused_unread(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bad.npz", **members(alphabet=np.zeros(40_000_000, "<u2")))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked 80 MB"))
    with pytest.raises(BundleError, match="80000128 bytes"):
        StaticPrior.load(tmp_path / "bad.npz")


def test_a_shape_that_lies_is_refused_before_memory_is_taken(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, array in members().items():
            stored = io.BytesIO()
            np.save(stored, array)
            data = stored.getvalue()
            if name == "inside":
                data = data.replace(b"(6,), }" + 12 * b" ", b"(6000000000000,), }")
                assert b"6000000000000" in data
            archive.writestr(name + ".npy", data)
    with pytest.raises(BundleError):
        StaticPrior.load(tmp_path / "bad.npz")
