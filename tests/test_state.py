"""State as data: it can be kept, copied and gone on from; the prior's history can outlive a packet."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace

import numpy as np
import pytest

from nacre.codec.decoder import decode_frames
from nacre.codec.encoder import encode_frames
from nacre.codec.packets import CONTEXT, PRIORS
from nacre.codec.state import Options, start_decoder, start_encoder
from nacre.core.errors import StreamError

HOP = 320
CARRIED = Options(CONTEXT, independent=False)


def coded(model, wave: np.ndarray, level: int, options: Options, frames: int = 1) -> list:
    """(packet, state) after packet, of so many frames each."""
    state, found = start_encoder(model), []
    for at in range(0, len(wave), frames * HOP):
        packet, state = encode_frames(model, state, wave[at : at + frames * HOP], level, options)
        found.append((packet, state))
    return found


def leaves(value: object) -> list[object]:
    """All that is in nested dicts, tuples and lists."""
    if isinstance(value, dict):
        return leaves(list(value.values()))
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list | tuple) else [value]


def test_states_are_arrays_and_numbers_only(both, fine_like, speech):
    for model in (both.model, fine_like):
        state, listener = start_encoder(model, residual=True), start_decoder(model)
        for at in (0, 3200):
            packet, state = encode_frames(model, state, speech[16_000 + at :][:3200], 3)
            _, listener = decode_frames(model, listener, packet)
        for leaf in leaves([asdict(state), asdict(listener)]):
            assert leaf is None or isinstance(leaf, int | float | np.ndarray), leaf


@pytest.fixture
def fine_like(both):
    """The model with both priors and a residual layer."""
    from test_residual import small_layer

    return replace(both.model, residual=small_layer())


@pytest.mark.parametrize("prior", PRIORS)
def test_a_state_that_was_kept_goes_on_as_if_nothing_had_been(fine_like, speech, prior):
    """Whatever was coded in between: no step changes what it is given."""
    model, options = fine_like, Options(prior)
    first, second, other = (speech[at : at + 3200] for at in (16_000, 19_200, 40_000))
    packet, encoder = encode_frames(model, start_encoder(model, residual=True), first, 3, options)
    _, decoder = decode_frames(model, start_decoder(model), packet, options=options)
    kept = copy.deepcopy((encoder, decoder))
    for level in (0, 3, 2):
        encode_frames(model, encoder, other, level, options)
    decode_frames(model, decoder, None)
    packets = [encode_frames(model, state, second, 3, options)[0] for state in (encoder, kept[0])]
    assert packets[0] == packets[1]
    waves = [decode_frames(model, state, packets[0], options=options)[0] for state in (decoder, kept[1])]
    np.testing.assert_array_equal(*waves)


@pytest.mark.parametrize("frames", [1, 3])
def test_history_outlives_a_packet(both, speech, frames):
    """Small packets that go on from one another give the sound of small packets that do not."""
    wave = speech[16_000 : 16_000 + 36 * HOP].copy()
    wave[10 * HOP : 13 * HOP] = 0
    sounds = []
    for options in (CARRIED, replace(CARRIED, independent=True)):
        state, heard = start_decoder(both.model), []
        for packet, encoder in coded(both.model, wave, 3, options, frames):
            sound, state = decode_frames(both.model, state, packet, frames, options)
            heard.append(sound)
            if options == CARRIED:
                for name, array in asdict(encoder.history).items():
                    np.testing.assert_array_equal(array, getattr(state.history, name))
            else:
                assert encoder.history is state.history is None
        sounds.append(np.concatenate(heard))
    np.testing.assert_array_equal(*sounds)


def test_packets_that_go_on_are_what_one_packet_would_be(both, speech):
    """Of four frames each and carried, symbols are coded by the very shares that a whole group gives them."""
    prior, rng = both.model.context_prior, np.random.default_rng(0)
    symbols = rng.integers(-1, 2, (12, 8)).astype(np.int32)  # none escapes
    whole = [bytes(answers) for answers, _ in prior.encoding(symbols, 2)]
    tables = [shares for _, shares in prior.encoding(symbols, 2)]
    history, found, shares_found = None, [], []
    for at in range(0, 12, 4):
        pieces = list(prior.encoding(symbols[at : at + 4], 2, history))[:-1]  # the last are dims that go by tables
        found += [bytes(answers) for answers, _ in pieces]
        shares_found += [shares for _, shares in pieces]
        history = prior.after(symbols[at : at + 4], 2, history)
    assert found == whole[:-1]
    for ours, theirs in zip(shares_found, tables, strict=False):
        np.testing.assert_array_equal(ours, theirs)


def test_history_goes_from_level_to_level(both):
    """The last symbols are kept in a unit that levels share: near their size at the other level."""
    prior = both.model.context_prior
    symbols = np.full((1, 8), 5, np.int32)
    history = prior.after(symbols, 3, None)
    _, same = prior._level([3], [history])
    np.testing.assert_array_equal(same[0], 5)
    _, other = prior._level([0], [history])
    ratio = prior.arrays["ratio"].astype(int)
    assert np.abs(other[0] * ratio[0] - 5 * ratio[3]).max() <= ratio[0].max() / 2


def test_a_damaged_packet_says_so_and_can_be_concealed(both, speech):
    (packet, _), *_ = coded(both.model, speech[16_000:19_200], 3, Options(), 10)
    state = start_decoder(both.model)
    with pytest.raises(StreamError, match="symbol check"):
        decode_frames(both.model, state, replace(packet, check=packet.check ^ 1))
    wave, after = decode_frames(both.model, state, None)
    assert wave.shape == (3200,)
    assert after.lost_samples == 3200
