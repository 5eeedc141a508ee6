"""Each rule of a generation config against transformers' own logits processor."""

import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.generation.config import GenerationConfig
from processors.generation.rules import Context, Pipeline, config_rules, select_rows

SIZE = 12
ENDS = (1, 2)


def context(ids: torch.Tensor, n_prompt: int, max_length: int = 12, mask: torch.Tensor | None = None) -> Context:
    n_rows, length = ids.shape
    sequences = torch.full((n_rows, max_length), 0)
    sequences[:, :length] = ids
    mask = torch.ones((n_rows, n_prompt), dtype=torch.bool) if mask is None else mask
    return Context(sequences, length, n_prompt, max_length, torch.zeros(n_rows, dtype=torch.bool), mask)


def run(options: dict, ids: torch.Tensor, logits: torch.Tensor, n_prompt: int, mask=None) -> torch.Tensor:
    config = GenerationConfig(max_length=12, **options)
    ctx = context(ids, n_prompt, mask=mask)
    return Pipeline(config_rules(config, ENDS, ctx), ctx)(logits, ctx)


@st.composite
def cases(draw):
    """Rows of ids, how many of them are the prompt, how many of these are padding, logits with ties and -inf."""
    length = draw(st.integers(1, 11))
    n_prompt = draw(st.integers(1, length))
    n_rows = draw(st.integers(1, 3))
    ids = draw(
        st.lists(st.lists(st.integers(0, 4), min_size=length, max_size=length), min_size=n_rows, max_size=n_rows)
    )
    values = st.sampled_from([-3.0, -0.5, 0.0, 0.25, 1.0, 1.0, 2.5, -math.inf])
    row = st.lists(values, min_size=SIZE - 1, max_size=SIZE - 1)
    logits = [[*draw(row), 0.5] for _ in range(n_rows)]
    pads = [draw(st.integers(0, n_prompt - 1)) for _ in range(n_rows)]
    mask = torch.arange(n_prompt)[None] >= torch.tensor(pads)[:, None]
    return torch.tensor(ids), torch.tensor(logits), n_prompt, mask


def theirs_of(rule: str, ids, n_prompt, mask):
    """Our options, and transformers' processor for the same."""
    padding = (~mask).sum(1)
    sampling = "multinomial_sampling"
    return {
        "ngram1": ({"no_repeat_ngram_length": 1}, transformers.NoRepeatNGramLogitsProcessor(1)),
        "ngram2": ({"no_repeat_ngram_length": 2}, transformers.NoRepeatNGramLogitsProcessor(2)),
        "ngram3": ({"no_repeat_ngram_length": 3}, transformers.NoRepeatNGramLogitsProcessor(3)),
        "min_length": ({"min_length": 6}, transformers.MinLengthLogitsProcessor(6, list(ENDS))),
        "min_new": (
            {"min_new_tokens": 3},
            transformers.MinNewTokensLengthLogitsProcessor(n_prompt, 3, list(ENDS)),
        ),
        "suppressed": ({"suppressed_token_ids": [0, 7]}, transformers.SuppressTokensLogitsProcessor([0, 7])),
        "begin": (
            {"begin_suppressed_token_ids": [3, 4]},
            transformers.SuppressTokensAtBeginLogitsProcessor([3, 4], n_prompt),
        ),
        "forced_bos": ({"forced_bos_token_id": 9}, transformers.ForcedBOSTokenLogitsProcessor(9)),
        "forced_eos": ({"forced_eos_token_id": [2, 5]}, transformers.ForcedEOSTokenLogitsProcessor(12, [2, 5])),
        "repetition": (
            {"repetition_penalty": 1.3},
            transformers.RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=padding),
        ),
        "temperature": ({"temperature": 0.7}, transformers.TemperatureLogitsWarper(0.7)),
        "top_k": ({"strategy": {"type": sampling, "top_k": 4}}, transformers.TopKLogitsWarper(4)),
        "top_k_all": ({"strategy": {"type": sampling, "top_k": 99}}, transformers.TopKLogitsWarper(99)),
        "top_p": ({"strategy": {"type": sampling, "top_p": 0.6}}, transformers.TopPLogitsWarper(0.6)),
        "top_p0": ({"strategy": {"type": sampling, "top_p": 0.0}}, transformers.TopPLogitsWarper(0.0)),
        "min_p": ({"strategy": {"type": sampling}, "min_p": 0.3}, transformers.MinPLogitsWarper(0.3)),
    }[rule]


RULES = [
    *("ngram1", "ngram2", "ngram3", "min_length", "min_new", "suppressed", "begin", "forced_bos", "forced_eos"),
    *("repetition", "temperature", "top_k", "top_k_all", "top_p", "top_p0", "min_p"),
]


@pytest.mark.parametrize("rule", RULES)
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_equal_to_transformers(rule, case):
    ids, logits, n_prompt, mask = case
    options, processor = theirs_of(rule, ids, n_prompt, mask)
    before = logits.clone()
    want = processor(ids, logits.clone())
    got = run(options, ids, logits, n_prompt, mask)
    assert got.tolist() == want.tolist()
    assert logits.tolist() == before.tolist()


class TestValues:
    def test_forced_token_ids(self):
        logits = torch.zeros(1, SIZE)
        options = {"forced_token_ids": [(2, 7), (4, 3)]}
        for length, token in ((1, None), (2, 7), (3, None), (4, 3)):
            got = run(options, torch.ones((1, length), dtype=torch.int64), logits, 1)
            assert got.isfinite().nonzero()[:, 1].tolist() == ([*range(SIZE)] if token is None else [token])
            assert got.amax() == 0

    @pytest.mark.parametrize(("p", "kept"), [(0.7, [2, 3]), (0.6, [2, 3]), (0.3, [3]), (1.0, [0, 1, 2, 3])])
    def test_top_p_keeps_the_token_that_crosses_the_line(self, p, kept):
        logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
        options = {"strategy": {"type": "multinomial_sampling", "top_p": p}}
        assert run(options, torch.tensor([[0]]), logits, 1).isfinite().nonzero()[:, 1].tolist() == kept

    def test_temperature_zero_leaves_the_first_of_the_best(self):
        got = run({"temperature": 0.0}, torch.tensor([[0]]), torch.tensor([[1.0, 5.0, 5.0]]), 1)
        assert got.tolist() == [[-math.inf, 0.0, -math.inf]]

    def test_ids_beyond_the_logits(self):
        """Embeddings may have more rows than there are logits."""
        ids, logits = torch.tensor([[5, 40, 5, 40, 5]]), torch.ones(1, SIZE)
        got = run({"no_repeat_ngram_length": 2, "repetition_penalty": 2.0}, ids, logits, 2)
        assert got.tolist() == [[1.0] * 5 + [0.5] + [1.0] * (SIZE - 6)]

    def test_begin_is_behind_a_forced_bos(self):
        options = {"begin_suppressed_token_ids": [3], "forced_bos_token_id": 9}
        assert run(options, torch.tensor([[0]]), torch.zeros(1, SIZE), 1).argmax() == 9
        assert run(options, torch.tensor([[0, 9]]), torch.zeros(1, SIZE), 1)[0, 3] == -math.inf

    def test_forced_goes_before_suppressed(self):
        got = run({"suppressed_token_ids": [9], "forced_bos_token_id": 9}, torch.tensor([[0]]), torch.zeros(1, SIZE), 1)
        assert got.isfinite().nonzero()[:, 1].tolist() == [9]


def test_order():
    """A guide sees what is forced and not yet truncated; truncation sees what the guide has left."""
    seen = {}

    class Guide:
        def init(self, ctx):
            return None

        def process(self, state, logits, ctx):
            seen["finite"] = logits.isfinite().sum().item()
            return state, logits.index_fill(1, torch.tensor([11, 10]), -math.inf)

    config = GenerationConfig(
        suppressed_token_ids=[0], temperature=0.5, strategy={"type": "multinomial_sampling", "top_k": 2}
    )
    ctx = context(torch.tensor([[3]]), 1)
    logits = torch.arange(SIZE, dtype=torch.float32)[None]
    got = Pipeline([*config_rules(config, ENDS, ctx, Guide()), lambda x, ctx: x + 1], ctx)(logits, ctx)
    assert seen["finite"] == SIZE - 1
    assert {k: v for k, v in enumerate(got[0].tolist()) if v > -math.inf} == {8: 17.0, 9: 19.0}


def test_selected_states():
    from typing import NamedTuple

    class Parts(NamedTuple):
        tensor: torch.Tensor
        rows: list
        scalar: torch.Tensor

    state = (Parts(torch.arange(6).view(3, 2), ["a", "b", "c"], torch.tensor(5)), {"x": 7, "text": "abc"}, None)
    parts, mapping, nothing = select_rows(state, torch.tensor([2, 0, 2, 2]), [2, 0, 2, 2])
    assert parts.tensor.tolist() == [[4, 5], [0, 1], [4, 5], [4, 5]]
    assert parts.rows == ["c", "a", "c", "c"]
    assert parts.scalar == 5
    assert mapping == {"x": 7, "text": "abc"}
    assert nothing is None
