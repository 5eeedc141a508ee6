"""Stop strings, against `bytes.find`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.generation._stops import StopStrings

TOKENS = [b"", b"a", b"b", b"ab", b"ba", b"aab", b"bb", b"abba", "é".encode()[:1], "é".encode()[1:]]


@given(
    st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(0, len(TOKENS) - 1), max_size=12),
)
def test_the_first_complete_stop_string(stops, tokens):
    matcher = StopStrings(stops, TOKENS.__getitem__)
    text, state = b"", 0
    for token in tokens:
        longer = text + TOKENS[token]
        ends = [longer.find(stop.encode()) + len(stop.encode()) for stop in stops if stop.encode() in longer]
        state, end = matcher.step(state, token)
        assert end == (min(ends) - len(text) if ends else None)
        if ends:
            return
        text = longer


def test_states_are_values():
    matcher = StopStrings([b"abba", "bb"], TOKENS.__getitem__)
    state, _ = matcher.step(0, 3)
    assert matcher.step(state, 4) == matcher.step(state, 4)
    assert matcher.step(state, 2)[1] == 1
    assert matcher.step(state, 1)[1] is None
    assert matcher.step(state, 0) == (state, None)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        StopStrings(["a", ""], TOKENS.__getitem__)
