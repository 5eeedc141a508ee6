"""The contract of a `TokenAutomaton`, on the toy vocabulary of conftest and on the regex automaton."""

from __future__ import annotations

import pickle
import random
import threading

import numpy as np
import pytest

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from outlines_core.compile import clear_cache, compile_ast

ALL_BYTES = oc.Vocabulary(
    256, {bytes([b]): [b] for b in range(256)} | {b"ab": [300], b"the": [301], b" the": [302, 303], b"\xc3\xa9t": [304]}
)


def mask_ids(automaton: oc.RegexAutomaton, state: int) -> list[int]:
    out = oc.allocate_bitmask(1, automaton.vocabulary)[0]
    automaton.fill_mask(state, out)
    return unpack_ids(out).tolist()


def test_dead_and_finished_states_behave_as_the_contract_says(toy: oc.Vocabulary) -> None:
    automaton = oc.compile_regex("ab?", toy)
    assert oc.DEAD == 0
    assert oc.FINISHED == 1
    assert mask_ids(automaton, oc.DEAD) == []
    assert mask_ids(automaton, oc.FINISHED) == [7]
    assert not automaton.is_accepting(oc.DEAD)
    assert automaton.is_accepting(oc.FINISHED)
    assert automaton.next_state(oc.DEAD, 0) == oc.DEAD
    assert automaton.next_state(oc.FINISHED, 7) == oc.FINISHED
    assert automaton.next_state(oc.FINISHED, 0) == oc.DEAD
    assert automaton.next_state(automaton.initial_state, 7) == oc.DEAD
    after = automaton.next_state(automaton.initial_state, np.int64(0))
    assert automaton.next_state(after, np.int32(7)) == oc.FINISHED


@pytest.mark.parametrize("token_id", [-1, -(2**40), 4, 8, 9, 2**31, 2**63, np.int64(-5), np.uint8(200)])
def test_ids_that_are_no_text_lead_nowhere(toy: oc.Vocabulary, token_id: int) -> None:
    automaton = oc.compile_regex(".*", toy)
    assert automaton.next_state(automaton.initial_state, token_id) == oc.DEAD


def test_eos_bits_are_set_exactly_in_accepting_states() -> None:
    vocabulary = oc.Vocabulary([3, 70], {"a": [0], "b": [64]})
    automaton = oc.compile_regex("ab?", vocabulary)
    start = automaton.initial_state
    assert mask_ids(automaton, start) == [0]
    assert mask_ids(automaton, automaton.next_state(start, 0)) == [3, 64, 70]
    assert mask_ids(automaton, oc.FINISHED) == [3, 70]


def test_masks_are_written_only_where_they_fit(toy: oc.Vocabulary) -> None:
    automaton = oc.compile_regex("ab", toy)
    state = automaton.initial_state
    too_small = np.full(0, 7, dtype=np.int32)
    strided = np.full(4, 7, dtype=np.int32)[::2]
    wrong = np.full(2, 7, dtype=np.int64)
    square = np.full((1, 1), 7, dtype=np.int32)
    frozen = np.full(1, 7, dtype=np.int32)
    frozen.setflags(write=False)
    for _ in range(2):  # before and after the mask is known
        for out in (too_small, strided, wrong, square, frozen):
            with pytest.raises(ValueError, match="mask"):
                automaton.fill_mask(state, out)
            assert (out == 7).all()
        automaton.fill_mask(state, np.zeros(1, dtype=np.int32))
    for dtype in (np.int32, np.uint32):
        wide = np.full(3, 7, dtype=dtype)
        automaton.fill_mask(state, wide)
        assert wide.tolist() == [0b101, 0, 0]


def test_unknown_states_are_refused(toy: oc.Vocabulary) -> None:
    automaton = oc.compile_regex("ab", toy)
    out = np.full(1, 7, dtype=np.int32)
    for state in (-1, 10_000):
        with pytest.raises(ValueError, match="not a state"):
            automaton.fill_mask(state, out)
    assert out.tolist() == [7]


def test_dead_ends_are_pruned_at_token_level() -> None:
    automaton = oc.compile_regex("ab|c", oc.Vocabulary(2, {"a": [0], "c": [1]}))
    assert mask_ids(automaton, automaton.initial_state) == [1]
    assert automaton.next_state(automaton.initial_state, 0) == oc.DEAD


def test_what_cannot_be_spelled_names_the_missing_bytes() -> None:
    with pytest.raises(oc.IncompatibleVocabularyError, match="The vocabulary") as caught:
        oc.compile_regex("aé+", oc.Vocabulary(2, {"a": [0], "c": [1]}))
    assert caught.value.missing_bytes == "é".encode()
    with pytest.raises(oc.UnsatisfiableError):
        oc.compile_regex("a(?!.*)b", ALL_BYTES)
    with pytest.raises(oc.UnsatisfiableError):
        oc.compile_choice([], ALL_BYTES)


def test_duplicate_tokens_are_allowed_together() -> None:
    automaton = oc.compile_regex("( the)+", ALL_BYTES)
    assert mask_ids(automaton, automaton.initial_state) == [32, 302, 303]
    assert automaton.next_state(automaton.initial_state, 302) == automaton.next_state(automaton.initial_state, 303)


def test_characters_may_be_split_over_tokens() -> None:
    automaton = oc.compile_regex("é+t?", ALL_BYTES)
    state = automaton.initial_state
    assert mask_ids(automaton, state) == [0xC3, 304]
    state = automaton.next_state(state, 0xC3)
    assert mask_ids(automaton, state) == [0xA9]
    assert not automaton.is_accepting(state)


def test_drafts_are_judged_token_by_token(toy: oc.Vocabulary) -> None:
    automaton = oc.compile_regex("(ab)+c", toy)
    out = np.full((4, 1), -1, dtype=np.int32)
    assert automaton.fill_draft_masks(automaton.initial_state, [2, 0, 3], out) == 2
    assert [unpack_ids(row).tolist() for row in out] == [[0, 2, 5], [0, 2, 3, 5], [1], []]
    assert automaton.accept_tokens(automaton.initial_state, [2, 0, 3])[0] == 2
    accepted, state = automaton.accept_tokens(automaton.initial_state, [5, 7])
    assert (accepted, state) == (2, oc.FINISHED)
    with pytest.raises(ValueError, match="rows"):
        automaton.fill_draft_masks(automaton.initial_state, [2, 0, 3], out[:3])


def test_forced_text_and_forced_tokens() -> None:
    automaton = oc.compile_regex("xyz(ab)?", ALL_BYTES)
    state = automaton.initial_state
    assert automaton.forced_bytes(state) == b"xyz"
    assert automaton.forced_tokens(state) == [ord("x"), ord("y"), ord("z")]
    assert automaton.forced_bytes(automaton.accept_tokens(state, b"xyz")[1]) == b""
    the = oc.compile_regex("the", ALL_BYTES)
    assert the.forced_bytes(the.initial_state) == b"the"
    assert the.forced_tokens(the.initial_state) == []  # "t" or "the"


def test_forced_bytes_without_all_bytes() -> None:
    vocabulary = oc.Vocabulary(9, {"ab": [0], "abc": [1], "c": [2], "x": [3]})
    automaton = oc.compile_regex("abc|abx", vocabulary)
    assert automaton.forced_bytes(automaton.initial_state) == b"ab"
    no_x = oc.compile_regex("abc|abx", oc.Vocabulary(9, {"ab": [0], "abc": [1], "c": [2]}))
    assert no_x.forced_bytes(no_x.initial_state) == b"abc"


def test_distances_in_tokens() -> None:
    automaton = oc.compile_regex("(ab){3}|x{7}", ALL_BYTES)
    assert automaton.min_tokens_to_accept(automaton.initial_state) == 3
    assert automaton.min_tokens_to_accept(automaton.next_state(automaton.initial_state, ord("x"))) == 6
    assert automaton.min_tokens_to_accept(oc.FINISHED) == 0
    with pytest.raises(ValueError, match="rejected"):
        automaton.min_tokens_to_accept(oc.DEAD)


def test_a_closing_mask_is_the_whole_mask_when_there_is_room() -> None:
    automaton = oc.compile_regex("[ab]{2,9}", ALL_BYTES)
    state = automaton.initial_state
    ample, tight = oc.allocate_bitmask(2, automaton.vocabulary)
    automaton.fill_closing_mask(state, 2, ample)
    assert unpack_ids(ample).tolist() == mask_ids(automaton, state)
    automaton.fill_closing_mask(state, 1, tight)
    assert unpack_ids(tight).tolist() == [300]


def test_closing_masks_do_not_depend_on_earlier_questions() -> None:
    tokens = {'"': [0], "a": [1], '":"': [2], '":"b': [3], ":": [4], "b": [5]}
    masks = []
    for ask_first in (False, True):
        clear_cache()
        automaton = oc.compile_regex('"a*":"b', oc.Vocabulary(9, tokens))
        if ask_first:
            assert automaton.min_tokens_to_accept(automaton.initial_state) == 2
        row = oc.allocate_bitmask(1, automaton.vocabulary)[0]
        automaton.fill_closing_mask(automaton.initial_state, 2, row)
        masks.append(unpack_ids(row).tolist())
    assert masks == [[0], [0]]


def test_materializing_changes_no_mask_and_reports_progress() -> None:
    lazy = oc.compile_regex(r"(\w|-){1,5}\.[a-z]+|é+|(?!b)[ab]*", ALL_BYTES)
    before = mask_ids(lazy, lazy.initial_state)
    clear_cache()
    eager = oc.compile_regex(r"(\w|-){1,5}\.[a-z]+|é+|(?!b)[ab]*", ALL_BYTES)
    calls: list[tuple[int, int]] = []
    eager.materialize(lambda done, total: calls.append((done, total)))
    assert calls
    assert calls[-1][0] == calls[-1][1]
    assert mask_ids(eager, eager.initial_state) == before
    rng = random.Random(0)
    for _ in range(50):
        a, b = lazy.initial_state, eager.initial_state
        for _ in range(8):
            ids = mask_ids(lazy, a)
            assert ids == mask_ids(eager, b)
            token = rng.choice(ids)
            a, b = lazy.next_state(a, token), eager.next_state(b, token)
            if a == oc.FINISHED:
                break


def test_eviction_of_masks_changes_nothing() -> None:
    small = oc.Limits(max_mask_bytes=2000)
    pattern = r"[a-z]{0,40}( the)?"
    bounded, free = oc.compile_regex(pattern, ALL_BYTES, limits=small), oc.compile_regex(pattern, ALL_BYTES)
    for automaton in (bounded, free):
        automaton.materialize()
    a, b = bounded.initial_state, free.initial_state
    for _ in range(41):
        assert mask_ids(bounded, a) == mask_ids(free, b)
        assert mask_ids(bounded, a) == mask_ids(free, b)
        a, b = bounded.next_state(a, ord("q")), free.next_state(b, ord("q"))
    assert bounded._core._mask_bytes <= 2000


def test_going_past_the_state_limit_leaves_everything_valid() -> None:
    limits = oc.Limits(max_states=50)
    automaton = oc.compile_regex(r"(.*a.{40})", ALL_BYTES, limits=limits)
    trail = [automaton.initial_state]
    text = b"abaabbabaabababbaaabababab" * 4

    def go_on() -> None:
        for letter in text:
            trail.append(automaton.next_state(trail[-1], letter))

    with pytest.raises(oc.LimitExceededError) as caught:
        go_on()
    assert caught.value.limit == 50
    free = oc.compile_regex(r"(.*a.{40})", ALL_BYTES)
    twin = free.initial_state
    for state, letter in zip(trail, text, strict=False):
        assert automaton.is_accepting(state) == free.is_accepting(twin)
        twin = free.next_state(twin, letter)
    assert automaton.next_state(trail[0], ord("a")) == trail[1]


def test_pickles_carry_the_constraint() -> None:
    for automaton in (
        oc.compile_regex(r"\d+(ab)?", ALL_BYTES),
        oc.compile_regex(r"^a\/b", ALL_BYTES, dialect="ecma"),
        oc.compile_choice(["yes", "no", ""], ALL_BYTES),
        oc.Index("(ab)+", ALL_BYTES),
    ):
        twin = pickle.loads(pickle.dumps(automaton))
        assert type(twin) is type(automaton)
        assert mask_ids(twin, twin.initial_state) == mask_ids(automaton, automaton.initial_state)
        assert twin.vocabulary == automaton.vocabulary


def test_a_choice_is_exactly_its_members() -> None:
    texts = ["", "no", "non", "nö", "a\nb", "a" * 100] + [f"item {k}" for k in range(40)]
    automaton = oc.compile_choice(texts, ALL_BYTES)
    for text in texts:
        accepted, state = automaton.accept_tokens(automaton.initial_state, text.encode())
        assert accepted == len(text.encode())
        assert automaton.is_accepting(state)
    for text in ("n", "nonn", "item", "item 40", "A"):
        accepted, state = automaton.accept_tokens(automaton.initial_state, text.encode())
        assert accepted < len(text) or not automaton.is_accepting(state)
    with pytest.raises(TypeError, match="not one text"):
        oc.compile_choice("yes", ALL_BYTES)


def test_editing_the_vocabulary_does_not_reach_what_was_compiled() -> None:
    vocabulary = oc.Vocabulary(9, {"a": [0]})
    automaton = oc.compile_regex("[ab]+", vocabulary)
    vocabulary.insert("b", 1)
    assert mask_ids(automaton, automaton.initial_state) == [0]
    assert automaton.vocabulary.get("b") is None
    assert mask_ids(oc.compile_regex("[ab]+", vocabulary), automaton.initial_state) == [0, 1]


def test_many_threads_see_the_same_masks() -> None:
    pattern = r"(?:[a-z]{1,8} (?:the|[A-Z]\w*) ?){1,6}[.!?]"
    expected = oc.compile_regex(pattern, ALL_BYTES)
    clear_cache()
    shared = oc.compile_regex(pattern, ALL_BYTES)
    walks: list[list[int]] = []
    rng = random.Random(1)
    for _ in range(60):
        state, walk = expected.initial_state, []
        for _ in range(25):
            ids = [t for t in mask_ids(expected, state) if t != 256]
            if not ids:
                break
            walk.append(rng.choice(ids))
            state = expected.next_state(state, walk[-1])
        walks.append(walk)
    failures: list[object] = []

    def follow(part: list[list[int]]) -> None:
        for walk in part:
            a, b = shared.initial_state, expected.initial_state
            for token in walk:
                if mask_ids(shared, a) != mask_ids(expected, b):
                    failures.append((walk, token))
                a, b = shared.next_state(a, token), expected.next_state(b, token)
                if a == oc.DEAD:
                    failures.append(walk)

    threads = [threading.Thread(target=follow, args=(walks[k::6] + walks[::7],)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_batch_is_the_rows_one_by_one(toy: oc.Vocabulary) -> None:
    automata = [oc.compile_regex(p, ALL_BYTES) for p in ("a+", "(the|b)c", r"\d{2}")]
    states = [automaton.initial_state for automaton in automata]
    states[0] = oc.FINISHED
    out = np.full((5, 10), -1, dtype=np.int32)
    for threads in (None, 1, 3):
        clear_cache()
        oc.fill_masks(automata, states, out, rows=[4, 0, 2], threads=threads)
        for automaton, state, row in zip(automata, states, (4, 0, 2), strict=True):
            assert unpack_ids(out[row]).tolist() == mask_ids(automaton, state)
        assert (out[[1, 3]] == -1).all()
    with pytest.raises(ValueError, match="as many"):
        oc.fill_masks(automata, states[:2], out)
    with pytest.raises(ValueError, match="rows"):
        oc.fill_masks(automata, states, out, rows=[0, 1, 5])


def test_a_batch_of_all_kinds_in_threads() -> None:
    """Many new masks of regexes, next to JSON, grammars and a state that there is not."""
    regexes = [oc.compile_regex(f"[a-{end}]+{end}", ALL_BYTES) for end in "bcdefghijklmnop"]
    automata = [
        oc.compile_json_schema({"type": "array"}, ALL_BYTES),
        *regexes,
        oc.compile_grammar('start: "a" start | "b"', ALL_BYTES),
        *regexes[:3],
    ]
    states = [automaton.initial_state for automaton in automata]
    expected = oc.allocate_bitmask(len(automata), ALL_BYTES)
    for automaton, state, row in zip(automata, states, expected, strict=True):
        automaton.fill_mask(state, row)
    for threads in (None, 1, 2, 5):
        clear_cache()
        fresh = [oc.compile_regex(f"[a-{end}]+{end}", ALL_BYTES) for end in "bcdefghijklmnop"]
        again = [automata[0], *fresh, automata[16], *fresh[:3]]
        out = np.full_like(expected, -1)
        oc.fill_masks(again, states, out, threads=threads)
        assert (out == expected).all()
        with pytest.raises(ValueError, match="not a state"):
            oc.fill_masks(again, [*states[:-1], 10**6], out, threads=threads)
    oc.fill_masks([], [], expected[:0])


def test_explanations_name_what_is_next() -> None:
    automaton = oc.compile_regex("[a-c]x|é", ALL_BYTES)
    text = automaton.explain(automaton.initial_state)
    assert "'a'-'c'" in text
    assert "0xC3" in text
    assert "may not end" in text
    assert "rejected" in automaton.explain(oc.DEAD) or "not allowed" in automaton.explain(oc.DEAD)


def test_the_older_index_face() -> None:
    index = oc.Index("(ab)+", oc.Vocabulary(3, {"a": [0], "b": [1], "ab": [2]}))
    start = index.get_initial_state()
    assert index.get_allowed_tokens(start) == [0, 2]
    middle = index.get_next_state(start, 0)
    assert middle is not None
    assert index.get_next_state(start, 1) is None
    assert index.get_next_state(start, 3) is None
    end = index.get_next_state(middle, 1)
    assert end is not None
    assert index.is_final_state(end)
    assert index.get_final_states() == {end}
    assert index.get_transitions() == {start: {0: middle, 2: end}, middle: {1: end}, end: {0: middle, 2: end, 3: end}}
    assert index == oc.Index("(ab)+", index.vocabulary)
    assert index != oc.Index("(ab)*", index.vocabulary)


def test_states_of_an_index_are_interned() -> None:
    """Equal futures get equal ids here: the two ways to the end meet."""
    index = oc.Index("ab|cb", ALL_BYTES)
    a, c = (index.next_state(index.initial_state, ord(x)) for x in "ac")
    assert a != c or index.next_state(a, ord("b")) == index.next_state(c, ord("b"))
    assert index.next_state(a, ord("b")) == index.next_state(c, ord("b"))


def test_steps_of_a_batch_are_the_steps_one_by_one(toy: oc.Vocabulary) -> None:
    one = oc.compile_regex("[a-z]{1,9}( the)*|é", ALL_BYTES)
    other = oc.compile_regex("ab*", ALL_BYTES)
    state = one.next_state(one.initial_state, ord("x"))
    states = [one.initial_state, state, state, oc.DEAD, oc.FINISHED, state, one.initial_state, state]
    tokens = [0xC3, 303, 256, 97, 256, -1, 256, 2**64]
    expected = [one.next_state(s, t) for s, t in zip(states, tokens, strict=True)]
    clear_cache()
    assert oc.next_states([one] * 8, states, tokens) == expected
    assert oc.next_states([one] * 2, states[:2], tokens[:2]) == expected[:2]
    mixed = oc.next_states([one, other], [state, other.initial_state], [ord("q"), ord("a")])
    assert mixed == [one.next_state(state, ord("q")), other.next_state(other.initial_state, ord("a"))]
    gaps = oc.compile_regex("(ab)+c", toy)
    assert oc.next_states([gaps] * 2, [gaps.initial_state] * 2, [2, 1]) == [
        gaps.next_state(gaps.initial_state, 2),
        oc.DEAD,
    ]
    with pytest.raises(ValueError, match="as many"):
        oc.next_states([one], states, tokens)


def test_set_algebra_becomes_an_automaton() -> None:
    words = oc.Language.parse("[a-z]{2,4}") - oc.Language.parse("the|ab.*")
    automaton = compile_ast(words.node, ALL_BYTES, label="words")
    for text in ("the", "ab", "abc", "then", "ba", "a"):
        accepted, state = automaton.accept_tokens(automaton.initial_state, text.encode())
        assert (accepted == len(text) and automaton.is_accepting(state)) == words.matches(text)
    assert 301 in mask_ids(automaton, automaton.initial_state)  # "the" as in "then"
    assert 300 not in mask_ids(automaton, automaton.initial_state)  # nothing that begins with "ab"
    twin = pickle.loads(pickle.dumps(automaton))
    assert mask_ids(twin, twin.initial_state) == mask_ids(automaton, automaton.initial_state)
