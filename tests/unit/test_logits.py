"""Logits processors called by hand: which row continues which, what each mask is, what is refused."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList

import outlines_core as oc
from outlines_core.errors import GuideError, TokenRejectedError, VocabularyError
from processors import _rows
from processors._rows import RowTracker
from processors.guide import Generate, RegexGuide, StopAtEOSGuide, Write
from processors.logits import (
    GuideLogitsProcessor,
    JSONLogitsProcessor,
    OutlinesLogitsProcessor,
    RegexLogitsProcessor,
)
from tests.toy_automaton import ToyAutomaton

EOS, PAD = 7, 8
ANY = {0, 2, 3, 5, 6}  # what begins a round of (ab|c)+
INF = float("inf")


@pytest.fixture(params=["host", "device"])
def tracked_on(request, monkeypatch):
    """Rows are compared by the kernel, and by the torch operations that serve other devices."""
    if request.param == "device":
        original = RowTracker.__init__
        monkeypatch.setattr(RowTracker, "__init__", lambda self: original(self, on_device=True))


def allowed(scores) -> list[set[int]]:
    return [set(np.flatnonzero(np.asarray(row) != -INF).tolist()) for row in scores]


def ask(processor, rows, n_columns=9) -> list[set[int]]:
    scores = torch.zeros(len(rows), n_columns)
    result = allowed(processor(torch.tensor(rows, dtype=torch.int64).reshape(len(rows), -1), scores))
    assert not scores.any()
    return result


def mask_of(automaton, tokens) -> set[int]:
    """The mask after some tokens; EOS once they have ended or gone astray."""
    n, state = automaton.accept_tokens(automaton.initial_state, tokens)
    if n < len(tokens):
        return {EOS}
    words = oc.allocate_bitmask(1, automaton.vocabulary)
    automaton.fill_mask(state, words[0])
    return set(np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist())


class TestRows:
    """Prompts are made of the hole 4 and text; row by row the expectation is `mask_of`."""

    def test_plain_decoding(self, toy, tracked_on):
        automaton = oc.compile_regex("(ab|c)+", toy)
        processor = GuideLogitsProcessor(toy, automaton)
        assert ask(processor, [[4, 0], [8, 3]]) == [ANY, ANY]
        assert ask(processor, [[4, 0, 0], [8, 3, 3]]) == [{1}, ANY | {EOS}]
        assert ask(processor, [[4, 0, 0, 1], [8, 3, 3, EOS]]) == [ANY | {EOS}, {EOS}]
        assert ask(processor, [[4, 0, 0, 1, EOS], [8, 3, 3, EOS, PAD]]) == [{EOS}, {EOS}]
        assert processor.violations == 0

    def test_beams_swap_places_and_double(self, toy, tracked_on):
        automaton = oc.compile_regex("(ab|c)+", toy)
        processor = GuideLogitsProcessor(toy, automaton)
        ask(processor, [[4, 4]] * 3)
        assert ask(processor, [[4, 4, 0], [4, 4, 3], [4, 4, 2]]) == [{1}, ANY | {EOS}, ANY | {EOS}]
        rows = [[4, 4, 3, 0], [4, 4, 3, EOS], [4, 4, 0, 1]]
        assert ask(processor, rows) == [{1}, {EOS}, ANY | {EOS}]
        rows = [[4, 4, 0, 1, 0], [4, 4, 3, 0, 1], [4, 4, 3, EOS, EOS]]
        assert ask(processor, rows) == [{1}, ANY | {EOS}, {EOS}]

    def test_drafts_shrink(self, toy, tracked_on):
        automaton = oc.compile_regex("a(ab|c)+b", toy)
        processor = GuideLogitsProcessor(toy, automaton)
        prompt = [4, 4]
        draft, verify = [(), (0,), (0, 3), (0, 3, 0)], [(), (0,), (0, 3), (0, 3, 3), (0, 3, 3, 0)]
        for tokens in [*draft, *verify, (0, 3, 0), (0, 3, 0, 1), (0, 0)]:
            assert ask(processor, [prompt + list(tokens)]) == [mask_of(automaton, tokens)], tokens

    def test_a_longer_prompt_is_a_new_call(self, toy, tracked_on):
        processor = RegexLogitsProcessor("abc?", toy)
        ask(processor, [[4]])
        ask(processor, [[4, 0]])
        assert ask(processor, [[4, 0, 1]]) == [{3, EOS}]
        # The whole output was [4, 0, 1, 3]: a prompt that extends it by a token was not seen but for its last.
        assert ask(processor, [[4, 0, 1, 3, 4]]) == [{0, 2, 5}]
        assert ask(processor, [[4, 0, 1, 3, 4, 2]]) == [{3, EOS}]

    def test_the_same_prompt_again(self, toy, tracked_on):
        processor = RegexLogitsProcessor("ab", toy)
        for _ in range(3):
            assert ask(processor, [[4, 3]]) == [{0, 2}]
            assert ask(processor, [[4, 3, 0]]) == [{1}]

    def test_seen_and_one_token_more_goes_on_unless_reset(self, toy, tracked_on):
        processor = RegexLogitsProcessor("ab", toy)
        ask(processor, [[4]])
        ask(processor, [[4, 0]])
        assert ask(processor, [[4, 0]]) == [{1}]
        processor.reset()
        assert ask(processor, [[4, 0]]) == [{0, 2}]

    def test_a_list_made_for_each_step(self, toy, tracked_on):
        processor = RegexLogitsProcessor("abb", toy)
        for tokens, expected in [((), {0, 2}), ((0,), {1}), ((0, 1), {1}), ((0, 1, 1), {EOS})]:
            scores = LogitsProcessorList([processor])(torch.tensor([[4, *tokens]]), torch.zeros(1, 9))
            assert allowed(scores) == [expected]

    def test_one_unknown_row_makes_all_of_them_prompts(self, toy, tracked_on):
        processor = RegexLogitsProcessor("abc", toy)
        ask(processor, [[4], [3]])
        assert ask(processor, [[4, 0], [0, 0]]) == [{0, 2, 5}, {0, 2, 5}]

    def test_rows_of_an_earlier_call_are_forgotten(self, toy, tracked_on):
        processor = RegexLogitsProcessor("abc", toy)
        ask(processor, [[4, 4]])
        ask(processor, [[3, 3]])
        assert ask(processor, [[4, 4, 0]]) == [{0, 2, 5}]

    def test_ids_that_start_empty(self, toy, tracked_on):
        processor = RegexLogitsProcessor("ab", toy)
        for _ in range(2):
            assert ask(processor, [[], []]) == [{0, 2}, {0, 2}]
            assert ask(processor, [[0], [2]]) == [{1}, {EOS}]
            assert ask(processor, [[0, 1], [2, EOS]]) == [{EOS}, {EOS}]

    def test_guides_share_the_rows_in_blocks(self, toy, tracked_on):
        guides = [oc.compile_regex("ab", toy), oc.compile_regex("c[ab]", toy)]
        processor = GuideLogitsProcessor(None, guides)
        assert ask(processor, [[4]] * 4) == [{0, 2}, {0, 2}, {3, 6}, {3, 6}]
        # Equal ids, other blocks: each row goes on in its own.
        assert ask(processor, [[4, 0], [4, 2], [4, 3], [4, 6]]) == [{1}, {EOS}, {0, 1}, {EOS}]
        with pytest.raises(ValueError, match="3 rows cannot be shared equally by 2 guides"):
            ask(processor, [[4]] * 3)
        assert ask(processor, [[4, 2, EOS], [4, 0, 1], [4, 3, 0], [4, 3, 1]]) == [{EOS}] * 4

    def test_groups_called_in_turn(self, toy, tracked_on):
        processor = RegexLogitsProcessor("(ab|c)+", toy)
        ask(processor, [[4]])
        assert ask(processor, [[4, 0]]) == [{1}]
        assert ask(processor, [[4, 3]]) == [ANY | {EOS}]
        assert ask(processor, [[4, 0, 1], [4, 3, 0]]) == [ANY | {EOS}, {1}]

    @pytest.mark.parametrize("seed", range(12))
    def test_random_walks(self, toy, tracked_on, seed):
        """Rows are doubled, reordered, dropped, cut back and extended at random; every mask by its own text."""
        rng = np.random.default_rng(seed)
        texts = {b"", b"a", b"abc", b"cab", b"caab", b"aca", b"abab", b"ccc", b"bbca"}
        n_blocks = int(rng.integers(1, 3))
        automata = [ToyAutomaton(texts, toy), oc.compile_regex("(a|bc?){0,4}", toy)][:n_blocks]
        processor = GuideLogitsProcessor(None, automata)
        prompt = rng.integers(0, 9, size=3).tolist()
        seen = [{()} for _ in automata]
        ask(processor, [prompt] * n_blocks)
        for _ in range(60):
            per_block = int(rng.integers(1, 4))
            lengths = [{len(t) for t in s} for s in seen]
            length = int(rng.choice(sorted(set.intersection(*lengths))))
            rows = []
            for automaton, known in zip(automata, seen, strict=True):
                choices = sorted(t for t in known if len(t) == length)
                for _ in range(per_block):
                    before = choices[rng.integers(len(choices))]
                    legal = sorted(mask_of(automaton, before))
                    token = int(rng.choice(legal)) if rng.random() < 0.9 else int(rng.integers(9))
                    rows.append((*before, token))
            answers = ask(processor, [prompt + list(row) for row in rows])
            for r, (row, answer) in enumerate(zip(rows, answers, strict=True)):
                block = r // per_block
                assert answer == mask_of(automata[block], row), (row, answer)
                seen[block].add(row)

    def test_long_texts(self, toy, tracked_on, monkeypatch):
        monkeypatch.setattr(_rows, "_CHAIN_CUT", 16)
        automaton = oc.compile_regex("(ab|c)*", toy)
        processor = GuideLogitsProcessor(None, automaton)
        tokens: list[int] = []
        ask(processor, [[4] * 5] * 2)
        for k in range(150):
            tokens.append([0, 1, 3][k % 3])
            assert ask(processor, [[4] * 5 + tokens, [4] * 5 + tokens]) == [mask_of(automaton, tokens)] * 2
        back = tokens[:140]
        assert ask(processor, [[4] * 5 + back]) == [mask_of(automaton, back)]
        chain, n = processor._rows._tracks[-1].links[0], 0
        while chain is not None:
            chain, n = chain.before, n + 1
        assert n < 64

    def test_memory_is_bounded(self, toy, tracked_on, monkeypatch):
        monkeypatch.setattr(_rows, "_MAX_TRACKS", 5)
        processor = RegexLogitsProcessor("[abc]*", toy)
        ask(processor, [[4]] * 2)
        tokens: tuple[list[int], list[int]] = ([], [])
        for k in range(40):
            tokens = (tokens[1] + [k % 2], tokens[0] + [3])
            ask(processor, [[4] + t for t in tokens])
            assert len(processor._rows._tracks) <= 5
        monkeypatch.setattr(_rows, "_MAX_TRACK_BYTES", 1)
        ask(processor, [[4] + tokens[1] + [0], [4] + tokens[0] + [0]])
        assert len(processor._rows._tracks) == 2

    def test_equal_sums_are_not_trusted(self, toy, monkeypatch):
        """With weights of zero every row has the sum of every other: only the ids themselves decide."""
        original = RowTracker.__init__
        monkeypatch.setattr(RowTracker, "__init__", lambda self: original(self, on_device=True))
        monkeypatch.setattr(RowTracker, "_weights_for", lambda _self, n, _device: torch.zeros(n, dtype=torch.int64))
        processor = RegexLogitsProcessor("(ab|c)+", toy)
        ask(processor, [[4, 4], [4, 3], [4, 0]])
        ask(processor, [[4, 4, 0], [4, 3, 3], [4, 0, 2]])
        rows = [[4, 0, 2, 0], [4, 3, 3, 3], [4, 4, 0, 1]]
        assert ask(processor, rows) == [{1}, ANY | {EOS}, ANY | {EOS}]
        assert ask(processor, [[4, 4, 4, 0]] * 3) == [ANY] * 3

    def test_one_copy_to_the_host_a_step(self, toy, monkeypatch):
        original = RowTracker.__init__
        monkeypatch.setattr(RowTracker, "__init__", lambda self: original(self, on_device=True))
        processor = RegexLogitsProcessor("(ab|c)+", toy)
        ask(processor, [[4, 4], [4, 3]])
        copies = []
        to_list = torch.Tensor.tolist
        monkeypatch.setattr(torch.Tensor, "tolist", lambda self: copies.append(self.shape) or to_list(self))
        ids = torch.tensor([[4, 3, 3], [4, 4, 0]])
        processor(ids, torch.zeros(2, 9))
        assert copies == [torch.Size([4, 2])]


class TestMasks:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
    def test_a_new_tensor_of_the_same_format(self, toy, dtype):
        processor = RegexLogitsProcessor("ab", toy)
        scores = torch.randn(1, 9).to(dtype)
        before = scores.clone()
        result = processor(torch.tensor([[4]]), scores)
        assert result.dtype == dtype
        assert torch.equal(scores, before)
        assert torch.equal(result[0, [0, 2]], scores[0, [0, 2]])
        assert torch.isneginf(result[0, [1, 3, 4, 5, 6, 7, 8]]).all()

    def test_logits_wider_and_narrower_than_the_vocabulary(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        assert ask(processor, [[4]], n_columns=200) == [{0, 2}]
        assert ask(processor, [[4]], n_columns=8) == [{0, 2}]  # id 8 is special: it is never allowed
        with pytest.raises(ValueError, match="another model or tokenizer"):
            ask(processor, [[4]], n_columns=7)

    def test_rows_that_went_astray_get_eos(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        ask(processor, [[4], [4]])
        assert ask(processor, [[4, 3], [4, 0]]) == [{EOS}, {1}]
        assert processor.violations == 1
        assert ask(processor, [[4, 3, 5], [4, 0, 1]]) == [{EOS}, {EOS}]
        assert processor.violations == 1
        processor.reset()
        assert processor.violations == 0

    def test_violations_may_raise(self, toy):
        processor = RegexLogitsProcessor("ab", toy, on_violation="raise")
        ask(processor, [[4], [4]])
        with pytest.raises(TokenRejectedError, match="row 1: token id 3") as caught:
            ask(processor, [[4, 0], [4, 3]])
        assert (caught.value.token_id, caught.value.position) == (3, 0)
        assert ask(processor, [[4, 0], [4, 2]]) == [{1}, {EOS}]  # the step did not happen

    def test_padding_of_a_row_that_something_else_has_ended(self, toy):
        class WithPad:
            eos_token_id, pad_token_id = EOS, PAD

        processor = GuideLogitsProcessor(WithPad(), oc.compile_regex("ab+", toy), on_violation="raise")
        ask(processor, [[4]])
        assert ask(processor, [[4, PAD]]) == [{EOS}]
        assert processor.violations == 0

    def test_ended_rows_are_never_closed(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        scores = torch.zeros(1, 9)
        scores[0, EOS] = -INF
        processor(torch.tensor([[4]]), scores)
        processor(torch.tensor([[4, 2]]), torch.zeros(1, 9))
        for tokens in ([2, EOS], [2, EOS, PAD]):
            result = processor(torch.tensor([[4, *tokens]]), scores)
            assert allowed(result) == [{EOS}]
            assert torch.softmax(result.half() / 0.7, -1)[0, EOS] == 1
            assert scores[0, EOS] == -INF

    def test_a_live_row_with_nothing_left_raises(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        scores = torch.zeros(2, 9)
        processor(torch.tensor([[4], [4]]), scores)
        scores[1, EOS] = -INF
        with pytest.raises(GuideError, match=r"row 1: the guide allows only token id 7 .*min_new_tokens"):
            processor(torch.tensor([[4, 0], [4, 2]]), scores)

    def test_eos_ids(self, toy):
        automaton = oc.compile_regex("ab?", toy)
        processor = GuideLogitsProcessor(None, automaton, eos_token_ids=[PAD, EOS])
        ask(processor, [[4], [4]])
        assert ask(processor, [[4, 0], [4, 2]]) == [{1, EOS, PAD}, {EOS, PAD}]
        assert ask(processor, [[4, 0, PAD], [4, 2, EOS]]) == [{EOS, PAD}] * 2
        processor = GuideLogitsProcessor(None, automaton, eos_token_ids=PAD)
        ask(processor, [[4], [4]])
        assert ask(processor, [[4, 0], [4, 2]]) == [{1, PAD}, {PAD}]
        assert ask(processor, [[4, 0, EOS], [4, 2, PAD]]) == [{PAD}] * 2
        assert processor.violations == 1
        processor = RegexLogitsProcessor("ab?", toy, eos_token_ids=[PAD])
        ask(processor, [[4]])
        assert ask(processor, [[4, 0]]) == [{1, PAD}]

    @pytest.mark.parametrize("texts", [[b"ab", b"abc", b"ca"], [b"c"], [b"", b"a"]])
    def test_any_automaton(self, toy, texts):
        automaton = ToyAutomaton(texts, toy)
        processor = GuideLogitsProcessor(toy, automaton)
        todo: list[tuple[int, ...]] = [()]
        for tokens in todo:
            processor.reset()
            for k in range(len(tokens) + 1):
                answer = ask(processor, [[4, *tokens[:k]]])
            assert answer == [mask_of(automaton, tokens)]
            if len(tokens) < 3:
                todo += [(*tokens, t) for t in sorted(answer[0]) if t != EOS]

    def test_fake_device(self, toy, monkeypatch):
        """The path of other devices, with the rows and the logits compared and masked by torch."""
        from processors import masking

        original = RowTracker.__init__
        monkeypatch.setattr(RowTracker, "__init__", lambda self: original(self, on_device=True))
        monkeypatch.setattr(
            masking,
            "_apply_on_host",
            lambda scores, words, out_open, out: _on_device(masking, scores, words, out_open, out),
        )
        self.test_rows_that_went_astray_get_eos(toy)
        self.test_a_live_row_with_nothing_left_raises(toy)
        self.test_ended_rows_are_never_closed(toy)


def _on_device(masking, scores, words, out_open, out):
    assert out is None
    masked = masking.apply_on_device(scores, torch.from_numpy(words))
    if out_open is not None:
        out_open[:] = (~torch.isneginf(masked)).any(1).numpy()
    return masked


class TestGuides:
    def test_stop_at_eos(self, toy):
        processor = GuideLogitsProcessor(toy, StopAtEOSGuide(toy))
        assert ask(processor, [[4]]) == [set(range(9))]
        assert ask(processor, [[4, 0]], n_columns=9) == [set(range(9))]
        assert ask(processor, [[4, 0, EOS]]) == [{EOS}]
        assert ask(processor, [[4, 0, EOS, PAD]]) == [{EOS}]

    def test_everything_means_every_column(self, toy):
        processor = GuideLogitsProcessor(toy, StopAtEOSGuide(toy))
        assert ask(processor, [[4]], n_columns=70) == [set(range(70))]

    def test_regex_guide_is_its_automaton(self, toy):
        processor = GuideLogitsProcessor(toy, RegexGuide.from_regex("ab", toy))
        assert ask(processor, [[4]]) == [{0, 2}]
        assert processor._sources[0].automaton is not None

    @pytest.mark.parametrize("kind", [list, torch.tensor, np.array])
    def test_user_written_guide(self, toy, kind):
        class Counting:
            """b twice, then a and ab written together, then nothing more."""

            initial_state = "start"

            def get_next_instruction(self, state):
                return {
                    "start": Generate(kind([1, 3])),
                    "b": Generate(kind([1])),
                    "bb": Write(kind([0, 2])),
                    "bba": Generate(kind([3])),
                    "end": Write(kind([EOS])),
                }[state]

            def get_next_state(self, state, token_id):
                return {"start": "b", "b": "bb", "bb": "bba", "bba": "end"}[state]

            def is_final_state(self, state):
                return state == "end"

            def copy(self):
                return self

        processor = GuideLogitsProcessor(toy, Counting())
        rows = [[4], [4]]
        for tokens, expected in [
            (None, [{1, 3}, {1, 3}]),
            ((1, 3), [{1}, {1}]),
            ((1, 0), [{0}, {EOS}]),
            ((0, EOS), [{2}, {EOS}]),
            ((2, EOS), [{EOS}, {EOS}]),
            ((EOS, EOS), [{EOS}, {EOS}]),
        ]:
            if tokens:
                rows = [[*row, t] for row, t in zip(rows, tokens, strict=True)]
            assert ask(processor, rows) == expected
        assert processor.violations == 1

    def test_guides_of_both_kinds_in_one_batch(self, toy):
        processor = GuideLogitsProcessor(toy, [StopAtEOSGuide(toy), oc.compile_regex("c", toy)])
        assert ask(processor, [[4], [4]]) == [set(range(9)), {3}]

    def test_what_is_no_guide(self, toy):
        with pytest.raises(TypeError, match="str"):
            GuideLogitsProcessor(toy, "ab")
        with pytest.raises(TypeError, match="Guide"):
            GuideLogitsProcessor(toy, oc.Guide(oc.compile_regex("a", toy)))
        with pytest.raises(ValueError, match="at least one"):
            GuideLogitsProcessor(toy, [])
        with pytest.raises(ValueError, match="max_new_tokens"):
            GuideLogitsProcessor(toy, StopAtEOSGuide(toy), max_new_tokens=3)

        class Bare:
            initial_state = 0

            def get_next_instruction(self, state):
                return Generate(None)

            def get_next_state(self, state, token_id):
                return 0

        with pytest.raises(ValueError, match="EOS"):
            GuideLogitsProcessor(None, Bare())
        assert ask(GuideLogitsProcessor(None, Bare(), eos_token_ids=1), [[4]]) == [set(range(9))]

    def test_other_vocabulary(self, toy):
        other = oc.Vocabulary(7, {"a": [0], "b": [1]})
        with pytest.raises(ValueError, match="compiled against the vocabulary"):
            GuideLogitsProcessor(other, oc.compile_regex("a", toy))

    @pytest.mark.parametrize(
        "arguments", [{"on_violation": "ignore"}, {"max_new_tokens": 0}, {"eos_token_ids": []}, {"eos_token_ids": -1}]
    )
    def test_arguments(self, toy, arguments):
        with pytest.raises(ValueError):  # noqa: PT011
            GuideLogitsProcessor(toy, oc.compile_regex("a", toy), **arguments)


BYTES = oc.Vocabulary(256, {bytes([b]): [b] for b in range(256)}, special_tokens={"<pad>": 257, "<think>": 258})


def ask_bytes(processor, *texts) -> list[str]:
    """The bytes that may follow each text; a dot is EOS."""
    rows = [[257, *(256 if char == "." else ord(char) for char in text)] for text in texts]
    answers = ask(processor, rows, n_columns=260)
    return ["".join("." if t == 256 else chr(t) for t in sorted(answer)) for answer in answers]


class TestJSON:
    SCHEMAS = (
        {"type": "boolean"},
        '{"enum": ["a", "b", null]}',
        {"type": "array", "items": {"const": True}, "maxItems": 2},
    )

    def test_a_schema_for_every_row(self, tracked_on):
        processor = JSONLogitsProcessor(list(self.SCHEMAS), BYTES, whitespace="compact")
        assert [type(guide).__name__ for guide in processor.guides] == ["JSONGuide"] * 3
        assert ask_bytes(processor, "", "", "") == ["ft", '"n', "["]
        assert ask_bytes(processor, "t", '"', "[") == ["r", "\\ab", "]t"]
        assert ask_bytes(processor, "tr", '"b', "[]") == ["u", '"', "."]
        assert ask_bytes(processor, "tru", '"b"', "[].") == ["e", ".", "."]
        assert processor.violations == 0

    def test_blocks_of_rows(self, tracked_on):
        processor = JSONLogitsProcessor(list(self.SCHEMAS[:2]), BYTES, whitespace="compact")
        assert ask_bytes(processor, "", "", "", "") == ["ft", "ft", '"n', '"n']
        assert ask_bytes(processor, "f", "t", '"', '"') == ["a", "r", "\\ab", "\\ab"]
        with pytest.raises(ValueError, match="3 rows cannot be shared equally by 2 guides"):
            ask_bytes(processor, "", "", "")

    def test_one_schema_for_all_rows(self):
        processor = JSONLogitsProcessor({"const": "x"}, BYTES, whitespace="compact")
        assert ask_bytes(processor, "", "") == ['"', '"']
        assert ask_bytes(processor, '"', '"') == ["\\x", "\\x"]
        assert ask_bytes(processor, '"x', '"y') == ['"', "."]
        assert processor.violations == 1

    def test_whitespace_pattern_in_its_older_places(self):
        for arguments in (["torch", " ?"], [" ?"], [None, " ?"]):
            processor = JSONLogitsProcessor({"type": "array", "items": False}, BYTES, *arguments)
            assert processor.tensor_library_name == "torch"
            assert ask_bytes(processor, "") == [" ["]
            assert ask_bytes(processor, "[") == [" ]"]
            assert ask_bytes(processor, "[ ") == ["]"]
        with pytest.raises(ValueError, match="two names of one thing"):
            JSONLogitsProcessor(True, BYTES, "torch", " ?", whitespace="compact")
        with pytest.raises(NotImplementedError, match="Library 'cupy'"):
            JSONLogitsProcessor(True, BYTES, "cupy")

    def test_eos_ids_and_start(self):
        processor = JSONLogitsProcessor(
            {"type": "boolean"}, BYTES, whitespace="compact", eos_token_ids=257, start_after="<think>"
        )
        assert ask(processor, [[1]], n_columns=260) == [set(range(260))]
        assert ask(processor, [[1, 258]], n_columns=260) == [{ord("f"), ord("t")}]
        for k in range(1, 4):
            ask(processor, [[1, 258, *b"true"[:k]]], n_columns=260)
        assert ask(processor, [[1, 258, *b"true"]], n_columns=260) == [{257}]

    @pytest.mark.parametrize("budget", [15, 17, 25])
    def test_max_new_tokens_closes_objects(self, budget):
        """Greedy for the longest: always the largest id that is allowed."""
        schema = {"properties": {"a": {"type": "string"}, "b": {"type": "array"}}, "required": ["a", "b"]}
        processor = JSONLogitsProcessor(schema, BYTES, whitespace="compact", max_new_tokens=budget)
        automaton = oc.compile_json_schema(schema, BYTES, whitespace="compact")
        text: list[int] = []
        while True:
            allowed = ask(processor, [[257, *text]], n_columns=260)[0]
            if allowed == {256}:
                break
            text.append(max(allowed - {256}))
        assert len(text) <= budget
        assert automaton.is_accepting(automaton.accept_tokens(automaton.initial_state, text)[1])

    def test_max_new_tokens_too_small(self):
        processor = JSONLogitsProcessor({"const": "four"}, BYTES, max_new_tokens=5)
        with pytest.raises(GuideError, match="takes 6 tokens"):
            ask_bytes(processor, "")

    def test_copies_and_names(self):
        processor = JSONLogitsProcessor([{"type": "null"}, True], BYTES, whitespace="compact")
        assert repr(processor) == "JSONLogitsProcessor([{'type': 'null'}, True])"
        ask_bytes(processor, "", "")
        for twin in (processor.copy(), copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
            assert ask_bytes(twin, "", "")[0] == "n"

    def test_errors_are_those_of_the_compiler(self):
        with pytest.raises(oc.ConstraintSyntaxError) as error:
            JSONLogitsProcessor([True, {"items": {"type": "text"}}], BYTES)
        assert error.value.path == "/items/type"


class TestStartAfter:
    def test_token_id_and_special_token(self, toy):
        for marker in (PAD, "<pad>"):
            processor = RegexLogitsProcessor("ab", toy, start_after=marker)
            free = set(range(9))
            assert ask(processor, [[PAD]]) == [free]  # the prompt does not count
            assert ask(processor, [[PAD, 3]]) == [free]
            assert ask(processor, [[PAD, 3, PAD]]) == [{0, 2}]
            assert ask(processor, [[PAD, 3, PAD, 2]]) == [{EOS}]

    def test_free_rows_are_not_touched_at_all(self, toy):
        processor = RegexLogitsProcessor("ab", toy, start_after=PAD)
        scores = torch.randn(1, 100)
        assert torch.equal(processor(torch.tensor([[4]]), scores), scores)

    def test_eos_ends_a_free_row(self, toy):
        processor = RegexLogitsProcessor("ab", toy, start_after=PAD)
        ask(processor, [[4]])
        assert ask(processor, [[4, EOS]]) == [{EOS}]
        assert processor.violations == 0

    def test_text_across_tokens(self, toy):
        processor = RegexLogitsProcessor("c", toy, start_after="ab")
        over = {5}  # "abc" runs over the end
        free = set(range(9))
        assert ask(processor, [[4]] * 3) == [free - over] * 3
        assert ask(processor, [[4, 2], [4, 0], [4, 6]]) == [{3}, free - over, free - over]
        # "a" then "b"; "ca" then "b"; and the row that has begun ends.
        assert ask(processor, [[4, 2, 3], [4, 0, 1], [4, 6, 1]]) == [{EOS}, {3}, {3}]

    def test_text_by_brute_force(self, toy):
        marker = b"aab"
        processor = RegexLogitsProcessor("c", toy, start_after=marker)
        rng = np.random.default_rng(5)
        for _ in range(60):
            processor.reset()
            tokens: list[int] = []
            ask(processor, [[4]])
            for _ in range(8):
                answer = ask(processor, [[4, *tokens]])[0] if tokens else ask(processor, [[4]])[0]
                text = b"".join(toy.token_bytes(t) for t in tokens)
                if marker in text:
                    assert text.index(marker) + len(marker) == len(text)
                    assert answer == {3}
                    break
                expected = set()
                for t in range(9):
                    longer = text + toy.token_bytes(t)
                    at = longer.find(marker)
                    if at < 0 or at + len(marker) == len(longer):
                        expected.add(t)
                assert answer == expected
                tokens.append(int(rng.choice(sorted(expected & {0, 1, 2, 3, 5, 6}))))

    def test_a_token_that_runs_over_the_end_is_a_violation(self, toy):
        processor = RegexLogitsProcessor("c", toy, start_after="ab")
        ask(processor, [[4]])
        assert ask(processor, [[4, 5]]) == [{EOS}]
        assert processor.violations == 1

    def test_special_tokens_interrupt_the_text(self, toy):
        processor = RegexLogitsProcessor("c", toy, start_after="ab")
        ask(processor, [[4]])
        ask(processor, [[4, 0]])
        ask(processor, [[4, 0, PAD]])
        assert ask(processor, [[4, 0, PAD, 1]]) == [set(range(9)) - {5}]

    @pytest.mark.parametrize(
        ("marker", "error"),
        [
            ("", ValueError),
            (99, ValueError),
            (-1, ValueError),
            ("x", VocabularyError),
            (True, TypeError),
            ([1], TypeError),
        ],
    )
    def test_markers_that_cannot_be(self, toy, marker, error):
        with pytest.raises(error):
            RegexLogitsProcessor("c", toy, start_after=marker)

    def test_text_needs_a_vocabulary(self, toy):
        with pytest.raises(ValueError, match="vocabulary"):
            GuideLogitsProcessor(None, StopAtEOSGuide(toy), start_after="ab")
        processor = GuideLogitsProcessor(None, StopAtEOSGuide(toy), start_after=3)
        assert ask(processor, [[4]]) == [set(range(9))]


class TestMaxNewTokens:
    @pytest.mark.parametrize("texts", [[b"abcab", b"c", b"caab", b"bbbb"], [b"aaa", b"ab", b"abcabc"]])
    @pytest.mark.parametrize("toy_automaton", [False, True])
    def test_by_brute_force(self, toy, texts, toy_automaton):
        """A token is allowed if and only if a text can be ended within what is left after it."""
        if toy_automaton:  # without `fill_closing_mask`
            automaton = ToyAutomaton(texts, toy)
        else:
            automaton = oc.compile_choice([text.decode() for text in texts], toy)

        def ends_within(tokens: tuple[int, ...], left: int) -> bool:
            text = b"".join(toy.token_bytes(t) for t in tokens)
            if text in texts:
                return True
            return left > 0 and any(
                ends_within((*tokens, t), left - 1)
                for t in (0, 1, 2, 3, 5, 6)
                if any(whole.startswith(text + toy.token_bytes(t)) for whole in texts)
            )

        for n in range(1, 6):
            if not ends_within((), n):
                with pytest.raises(GuideError, match=f"max_new_tokens={n} is too small.* takes {n + 1} tokens"):
                    ask(GuideLogitsProcessor(None, automaton, max_new_tokens=n), [[4]])
                continue
            processor = GuideLogitsProcessor(None, automaton, max_new_tokens=n)
            todo: list[tuple[int, ...]] = [()]
            for tokens in todo:
                processor.reset()
                for k in range(len(tokens) + 1):
                    answer = ask(processor, [[4, *tokens[:k]]])[0]
                left = n - len(tokens)
                expected = {t for t in (0, 1, 2, 3, 5, 6) if left and ends_within((*tokens, t), left - 1)}
                expected = {t for t in expected if mask_of(automaton, tokens) >= {t}}
                text = b"".join(toy.token_bytes(t) for t in tokens)
                assert answer == expected | ({EOS} if text in texts else set()), (n, tokens)
                todo += [(*tokens, t) for t in sorted(expected)]

    def test_a_token_that_uses_up_the_budget(self, toy):
        processor = RegexLogitsProcessor("c|a{4}", toy, max_new_tokens=2)
        assert ask(processor, [[4]]) == [{3}]
        assert ask(processor, [[4, 0]]) == [{EOS}]
        assert processor.violations == 1

    def test_beyond_the_budget(self, toy):
        processor = RegexLogitsProcessor("a+", toy, max_new_tokens=2)
        ask(processor, [[4]])
        assert ask(processor, [[4, 0]]) == [{0, EOS}]
        assert ask(processor, [[4, 0, 0]]) == [{EOS}]

    def test_with_a_marker_token(self, toy):
        processor = RegexLogitsProcessor("ca?", toy, start_after=PAD, max_new_tokens=3)
        free = set(range(9))
        assert ask(processor, [[4]]) == [free]
        assert ask(processor, [[4, 0]]) == [{PAD}]
        assert ask(processor, [[4, 0, PAD]]) == [{3, 6}]
        processor = RegexLogitsProcessor("ca", toy, start_after=PAD, max_new_tokens=1)
        with pytest.raises(GuideError, match="takes 2 tokens, start_after included"):
            ask(processor, [[4]])

    @pytest.mark.parametrize("n", range(4, 9))
    def test_with_a_marker_text(self, toy, n):
        """However the free tokens are chosen, the whole is complete after n tokens."""
        rng = np.random.default_rng(n)
        for _ in range(40):
            processor = RegexLogitsProcessor("cb|bb", toy, start_after="aab", max_new_tokens=n)
            tokens: list[int] = []
            for _ in range(n):
                choices = ask(processor, [[4, *tokens]])[0] - {EOS}
                if not choices:
                    break
                tokens.append(int(rng.choice(sorted(choices))))
            text = b"".join(toy.token_bytes(t) for t in tokens).decode()
            assert re.search("aab(cb|bb)$", text), (tokens, text)
            assert processor.violations == 0


class TestFaces:
    def test_is_a_logits_processor(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        assert isinstance(processor, LogitsProcessor)
        assert isinstance(processor, OutlinesLogitsProcessor)

    @pytest.mark.parametrize("library", ["torch", "numpy", "mlx", "jax", "tensorflow"])
    def test_known_libraries(self, toy, library):
        assert RegexLogitsProcessor("ab", toy, library).tensor_library_name == library

    def test_unknown_library(self, toy):
        with pytest.raises(NotImplementedError, match="theano"):
            RegexLogitsProcessor("ab", toy, "theano")

    def test_numpy(self, toy):
        processor = RegexLogitsProcessor("ab", toy, "numpy")
        scores = np.zeros((2, 9), dtype=np.float32)
        scores.setflags(write=False)
        result = processor(np.array([[4], [4]], dtype=np.int32), scores)
        assert isinstance(result, np.ndarray)
        assert result.dtype == np.float32
        assert allowed(result) == [{0, 2}] * 2

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_lists(self, toy, kind):
        processor = RegexLogitsProcessor("ab", toy)
        result = processor([[4]], kind([[0.0] * 9]))
        assert type(result) is kind
        assert allowed(result) == [{0, 2}]
        result = processor([4, 0], kind([0.0] * 9))
        assert type(result) is kind
        assert allowed([result]) == [{1}]
        rows = processor([np.array([4, 0, 1])], [np.zeros(9, dtype=np.float32)])
        assert isinstance(rows[0], np.ndarray)
        assert allowed(rows) == [{EOS}]

    def test_one_dimension(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        assert allowed([processor(torch.tensor([4]), torch.zeros(9))]) == [{0, 2}]
        result = processor(torch.tensor([4, 0]), torch.zeros(1, 9))
        assert result.shape == (1, 9)
        assert allowed(result) == [{1}]

    @pytest.mark.parametrize(
        ("ids", "scores"), [((2, 3), (3, 9)), ((3,), (2, 9)), ((1, 3), (9,)), ((1, 1, 3), (1, 1, 9)), ((), ())]
    )
    def test_shapes(self, toy, ids, scores):
        with pytest.raises(ValueError, match="dimension"):
            RegexLogitsProcessor("ab", toy)(torch.zeros(ids, dtype=torch.int64), torch.zeros(scores))

    def test_types(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        with pytest.raises(TypeError, match="str"):
            processor("ab", torch.zeros(1, 9))
        with pytest.raises(TypeError, match="object"):
            processor(torch.tensor([[4]]), object())
        with pytest.raises(TypeError, match="integers"):
            processor(torch.tensor([[4.5]]), torch.zeros(1, 9))
        with pytest.raises(TypeError, match="float16"):
            processor(torch.tensor([[4]]), torch.zeros(1, 9, dtype=torch.int64))

    def test_own_processors_on_the_base(self):
        class Zero(OutlinesLogitsProcessor):
            def process_logits(self, input_ids, logits):
                assert (input_ids.ndim, logits.ndim) == (2, 2)
                return torch.zeros_like(logits)

        assert Zero("numpy")(np.array([1]), np.ones(3)).tolist() == [0, 0, 0]
        Zero().reset()

    def test_copy_deepcopy_pickle(self, toy):
        processor = RegexLogitsProcessor("ab", toy, max_new_tokens=5)
        ask(processor, [[4]])
        ask(processor, [[4, 3]])
        assert processor.violations == 1
        for twin in (processor.copy(), copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
            assert type(twin) is RegexLogitsProcessor
            assert twin.violations == 0
            assert ask(twin, [[4, 0]]) == [{0, 2}]  # it has seen nothing: a prompt
            assert twin.max_new_tokens == 5
        assert ask(processor, [[4, 3, 3]]) == [{EOS}]

    def test_repr(self, toy):
        assert repr(RegexLogitsProcessor("ab", toy)) == "RegexLogitsProcessor('ab')"
        assert "RegexAutomaton" in repr(GuideLogitsProcessor(toy, oc.compile_regex("ab", toy)))

    def test_no_rows(self, toy):
        result = RegexLogitsProcessor("ab", toy)(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 9))
        assert result.shape == (0, 9)

    def test_continuous_batching_is_refused_aloud(self, toy):
        processor = RegexLogitsProcessor("ab", toy)
        with pytest.raises(oc.UnsupportedFeatureError, match="continuous batching"):
            ContinuousBatchingLogitsProcessorList([processor])
        with pytest.raises(ValueError, match="dimension"):
            processor(torch.tensor([1, 2]), torch.zeros(2, 9))
