"""One thread for the coder's products, and the caller's number of threads afterwards, whoever leaves last."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from nacre.codec.packets import PacketCoder
from nacre.dsp import blas
from nacre.dsp.blas import one_thread
from nacre.entropy.residual import ResidualLayer


def threads() -> int:
    """Threads of numpy's BLAS."""
    return blas.threads.count()


@pytest.fixture
def two():
    before = blas.threads.count()
    blas.threads.set(2)
    if blas.threads.count() != 2:
        pytest.skip("a BLAS that nobody knows, or one of a single thread")
    yield
    blas.threads.set(before)


def test_one_inside_and_the_callers_afterwards(two):
    outer = one_thread(lambda: (threads(), one_thread(threads)(), threads()))
    assert outer() == (1, 1, 1)
    assert threads() == 2


def test_an_error_gives_the_threads_back(two):
    with pytest.raises(ZeroDivisionError):
        one_thread(lambda: 1 / 0)()
    assert threads() == 2


def test_threads_that_overlap_leave_what_was_there(two):
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        leave.wait(10)

    other = threading.Thread(target=one_thread(stay))
    other.start()
    assert inside.wait(10)
    assert one_thread(threads)() == 1
    assert threads() == 1  # the other one is still at it
    leave.set()
    other.join()
    assert threads() == 2


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_beside_a_busy_thread_can_code(two):
    inside, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=one_thread(lambda: (inside.set(), leave.wait(10))))
    other.start()
    assert inside.wait(10)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(_in_child).get(20)
    leave.set()
    other.join()
    assert found == (2, 1)


def _in_child() -> tuple[int, int]:
    return threads(), one_thread(threads)()


def test_coding_and_decoding_run_on_one(monkeypatch, two, both, speech):
    seen: list[int] = []
    for owner, name in ((both.model.context_prior, "_hidden"), (both.model.context_prior, "_shares")):
        found = getattr(owner, name)
        monkeypatch.setitem(owner.__dict__, name, lambda *given, found=found: seen.append(threads()) or found(*given))
    both.decode(both.encode(speech[:16_000], 16_000, quality=50))
    assert len(seen) > 20
    assert all(count == 1 for count in seen)
    assert threads() == 2


@pytest.mark.parametrize(
    "work", [PacketCoder.pack, PacketCoder.unpack, PacketCoder.costs, ResidualLayer.symbols, ResidualLayer.enhanced]
)
def test_homes_of_products_ask_for_one(work):
    assert hasattr(work, "__wrapped__")
