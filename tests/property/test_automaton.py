"""The token automaton of a regex against `re`: every mask of every state that short texts reach.

Two directions make the check complete. Whatever brute force (all texts of a few characters) can finish must be allowed.
Whatever is allowed must be finishable: the automaton's own shortest way to the end is spelled out and given to `re`.
"""

from __future__ import annotations

import itertools
import re

from hypothesis import given, reject, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from tests.strategies import ALPHABET, patterns, scaled, texts, vocabularies

_SHORT = ["".join(w) for n in range(5) for w in itertools.product(ALPHABET, repeat=n)]


def compiled(pattern: str, vocabulary: oc.Vocabulary) -> oc.RegexAutomaton | None:
    try:
        return oc.compile_regex(pattern, vocabulary)
    except oc.UnsatisfiableError:
        return None
    except oc.UnsupportedFeatureError:
        reject()


def spellings(text: bytes, vocabulary: oc.Vocabulary, prefix: bytes) -> bool:
    """Can `text[len(prefix):]` be cut into tokens?"""
    ends = {len(prefix)}
    for at in range(len(prefix), len(text)):
        if at in ends:
            ends |= {at + len(token) for token, _ in vocabulary.items() if text.startswith(token, at)}
    return len(text) in ends


def completion(automaton: oc.RegexAutomaton, state: int) -> bytes:
    """The text of a shortest token sequence to acceptance."""
    text = b""
    while not automaton.is_accepting(state):
        left = automaton.min_tokens_to_accept(state)
        for token_id in automaton.allowed_tokens(state).tolist():
            target = automaton.next_state(state, token_id)
            assert target != oc.DEAD
            if automaton.min_tokens_to_accept(target) == left - 1:
                text += automaton.vocabulary.token_bytes(token_id)
                state = target
                break
        else:
            raise AssertionError("no allowed token is nearer to the end")
    return text


@settings(max_examples=scaled(300))
@given(patterns(atomic=True), vocabularies(), st.data())
def test_masks_are_sound_and_complete(pattern: str, vocabulary: oc.Vocabulary, data: st.DataObject) -> None:
    regex = re.compile(pattern)
    automaton = compiled(pattern, vocabulary)
    matching = [t.encode() for t in _SHORT if regex.fullmatch(t)]
    if automaton is None:
        assert not any(spellings(text, vocabulary, b"") for text in matching)
        return
    out = oc.allocate_bitmask(1, vocabulary)[0]
    state, text = automaton.initial_state, b""
    for _ in range(4):
        accepting = text in matching if len(text.decode("utf-8", "ignore")) < 5 else automaton.is_accepting(state)
        assert automaton.is_accepting(state) == accepting
        automaton.fill_mask(state, out)
        allowed = set(unpack_ids(out).tolist())
        assert set(vocabulary.eos_token_ids) & allowed == (set(vocabulary.eos_token_ids) if accepting else set())
        steps = {t: automaton.next_state(state, t) for t in range(-1, vocabulary.size + 2)}
        assert {t for t, target in steps.items() if target != oc.DEAD} == allowed
        must = {
            i
            for token, ids in vocabulary.items()
            for i in ids
            for goal in matching
            if goal.startswith(text + token) and spellings(goal, vocabulary, text + token)
        }
        assert must <= allowed
        for token_id in sorted(allowed - set(vocabulary.eos_token_ids)):
            whole = text + vocabulary.token_bytes(token_id) + completion(automaton, steps[token_id])
            assert regex.fullmatch(whole.decode()), whole
        choices = sorted(allowed - set(vocabulary.eos_token_ids))
        if not choices:
            break
        chosen = data.draw(st.sampled_from(choices))
        state, text = steps[chosen], text + vocabulary.token_bytes(chosen)


@settings(max_examples=scaled(500))
@given(patterns(atomic=True), st.lists(texts(), max_size=30))
def test_whole_texts_agree_with_re(pattern: str, some: list[str]) -> None:
    regex = re.compile(pattern)
    try:
        language = oc.Language.parse(pattern)
    except oc.UnsupportedFeatureError:
        reject()
    for text in [*_SHORT[:85], *some]:
        assert language.matches(text) == bool(regex.fullmatch(text)), (pattern, text)


@settings(max_examples=scaled(150))
@given(patterns(atomic=True), vocabularies(complete=True), st.data())
def test_forced_text_is_the_common_prefix(pattern: str, vocabulary: oc.Vocabulary, data: st.DataObject) -> None:
    automaton = compiled(pattern, vocabulary)
    if automaton is None:
        return
    forced = automaton.forced_bytes(automaton.initial_state)
    regex = re.compile(pattern)
    matching = [t.encode() for t in _SHORT if regex.fullmatch(t)]
    assert all(text.startswith(forced) for text in matching)
    chain = automaton.forced_tokens(automaton.initial_state)
    spelled = b"".join(map(vocabulary.token_bytes, chain))
    assert forced.startswith(spelled)
    state = automaton.initial_state
    for token_id in chain:
        assert automaton.allowed_tokens(state).tolist() == [token_id]
        state = automaton.next_state(state, token_id)


@settings(max_examples=scaled(100))
@given(patterns(), vocabularies(), st.integers(1, 4))
def test_closing_masks_leave_room_to_end(pattern: str, vocabulary: oc.Vocabulary, budget: int) -> None:
    automaton = compiled(pattern, vocabulary)
    if automaton is None:
        return
    state = automaton.initial_state
    out = oc.allocate_bitmask(1, vocabulary)[0]
    automaton.fill_closing_mask(state, budget, out)
    for token_id in automaton.allowed_tokens(state).tolist():
        target = automaton.next_state(state, token_id)
        near = target == oc.FINISHED or automaton.min_tokens_to_accept(target) <= budget - 1
        assert bool(out[token_id >> 5] >> (token_id & 31) & 1) == near


@settings(max_examples=scaled(60))
@given(patterns(looks=False), st.integers(9, 30), st.sampled_from(["", "?", "b{12,}", "|a{40}"]), vocabularies())
def test_masks_shared_between_counts_are_the_masks(body: str, count: int, rest: str, vocabulary: oc.Vocabulary) -> None:
    """Deep inside a long repeat one mask serves many counts; each must still be what the tokens themselves say."""
    automaton = compiled(f"(?:{body}){{{count // 3},{count}}}{rest}", vocabulary)
    if automaton is None:
        return
    state = automaton.initial_state
    for _ in range(2 * count):
        allowed = automaton.allowed_tokens(state).tolist()
        assert allowed == [t for t in range(vocabulary.size) if automaton.next_state(state, t) != oc.DEAD]
        allowed = [t for t in allowed if t not in vocabulary.eos_token_ids]
        if not allowed:
            break
        state = automaton.next_state(state, allowed[count % len(allowed)])
