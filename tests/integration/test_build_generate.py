"""`build_generate` against `transformers.generate()`, exact distributions, and laws of its own."""

import itertools
import re

import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MambaConfig,
    MambaForCausalLM,
    RepetitionPenaltyLogitsProcessor,
)

import outlines_core as oc
from outlines_core.errors import GuideError, TokenRejectedError, UnsupportedFeatureError
from processors.generation.behaviour import TransformersSpec
from processors.generation.builder import build_generate
from processors.generation.config import GenerationConfig
from processors.logits import GuideLogitsProcessor
from tests.generation_models import ARCHITECTURES, BOS, ENDS, PAD, PROMPTS, SIZE, batch, expected, model_of

N_NEW = 12
GREEDY = {"type": "greedy_search"}
SAMPLING = {"type": "multinomial_sampling"}
CONTRASTIVE = {"type": "contrastive_search", "top_k": 4, "alpha": 0.6}
BEAMS = {"type": "beam_search", "num_beams": 3}


def config_of(model, strategy=GREEDY, **options) -> GenerationConfig:
    return GenerationConfig.from_model(model, **{"max_new_tokens": N_NEW, **options}).configure(strategy=strategy)


def generate(model, strategy=GREEDY, inputs=None, *, spec=None, build=None, guide=None, on_token=None, **options):
    function = build_generate(model, spec or model.config, config_of(model, strategy, **options), **(build or {}))
    return function(None, batch() if inputs is None else inputs, on_token, guide=guide)


def lengths_of(token_ids: torch.Tensor) -> list[int]:
    """New tokens up to the first end token, this one included."""
    rows = token_ids.tolist()
    return [next((k + 1 for k, token in enumerate(row) if token in ENDS), len(row)) for row in rows]


@pytest.mark.parametrize("name", ARCHITECTURES)
class TestEqualsTransformers:
    @pytest.mark.parametrize("cache", ["dynamic", "static", None])
    def test_greedy(self, name, cache):
        model = model_of(name)
        output = generate(model, spec=TransformersSpec(model.config, cache))
        assert output["token_ids"].tolist() == expected(model, N_NEW).tolist()
        assert output["length"].tolist() == lengths_of(output["token_ids"])

    @pytest.mark.parametrize(
        ("cache", "options"),
        [
            ("dynamic", {"num_beams": 3}),
            ("dynamic", {"num_beams": 4, "length_penalty": 0.3, "early_stopping": True}),
            ("static", {"num_beams": 4, "length_penalty": 0.3, "early_stopping": True}),
            (None, {"num_beams": 4, "length_penalty": 0.3, "early_stopping": True}),
            ("dynamic", {"num_beams": 2, "length_penalty": 2.0, "early_stopping": "never"}),
            ("dynamic", {"num_beams": 3, "length_penalty": -1.0}),
            ("dynamic", {"num_beams": 1}),
        ],
        ids=str,
    )
    def test_beams(self, name, cache, options):
        model = model_of(name)
        output = generate(model, {"type": "beam_search", **options}, spec=TransformersSpec(model.config, cache))
        assert output["token_ids"].tolist() == expected(model, N_NEW, **options).tolist()
        assert output["length"].tolist() == lengths_of(output["token_ids"])


def test_texts_end_at_different_lengths():
    """Else the tests above would say little about ends."""
    lengths = {n for name in ARCHITECTURES for n in generate(model_of(name), BEAMS)["length"].tolist()}
    assert len(lengths) >= 3


RULES = {
    "min_new_tokens": {"min_new_tokens": 9},
    "min_length": {"min_length": 11},
    "no_repeat_ngram": {"no_repeat_ngram_size": 2},
    "suppress": {"suppress_tokens": [*range(32, 60)]},
    "begin_suppress": {"begin_suppress_tokens": [*range(4, 50)]},
    "forced_bos": {"forced_bos_token_id": 17},
    "forced_eos": {"forced_eos_token_id": 20},
    "repetition": {"repetition_penalty": 1.7},
    "all": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 6,
        "begin_suppress_tokens": [33],
        "forced_eos_token_id": [30],
        "forced_bos_token_id": 9,
    },
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["llama", "t5"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_rules_in_whole_texts(rule, name, num_beams):
    model, options = model_of(name), RULES[rule]
    values = {**model.generation_config.to_dict(), "max_new_tokens": N_NEW, "num_beams": num_beams, **options}
    function = build_generate(model, model.config, GenerationConfig.from_dict(values))
    assert (
        function(None, batch())["token_ids"].tolist() == expected(model, N_NEW, num_beams=num_beams, **options).tolist()
    )


class TestInputs:
    @pytest.mark.parametrize(
        "strategy", [GREEDY, BEAMS, CONTRASTIVE, {**SAMPLING, "top_k": 20}], ids=lambda s: s["type"]
    )
    @pytest.mark.parametrize("name", ["llama", "gpt2"])
    def test_padding_on_either_side_and_none(self, name, strategy):
        model = model_of(name)
        seeds = [3, 1, 4]
        left, right = (
            generate(model, strategy, {**batch(side=side), "seed": seeds})["token_ids"].tolist()
            for side in ("left", "right")
        )
        single = [
            generate(model, strategy, {"input_ids": [row], "seed": [seed]})["token_ids"].tolist()[0]
            for row, seed in zip(PROMPTS, seeds, strict=True)
        ]
        assert left == right == single

    @pytest.mark.parametrize("strategy", [GREEDY, BEAMS, CONTRASTIVE], ids=lambda s: s["type"])
    @pytest.mark.parametrize("name", ["llama", "t5"])
    def test_rows_that_fill_up_a_batch(self, name, strategy):
        model = model_of(name)
        inputs = batch()
        inputs["input_ids"][1] = 0
        inputs["attention_mask"][1] = 0
        output = generate(model, strategy, inputs)
        whole = generate(model, strategy)
        assert output["length"][1] == 0
        assert output["token_ids"][1].tolist() == [PAD] * N_NEW
        assert output["token_ids"][[0, 2]].tolist() == whole["token_ids"][[0, 2]].tolist()

    def test_a_prompt_of_zeros_is_a_prompt(self):
        assert generate(model_of("llama"), inputs={"input_ids": [[0, 0]]})["length"][0] > 0

    def test_only_filler(self):
        ran = []
        output = generate(
            model_of("llama"),
            inputs={"input_ids": [[4]], "attention_mask": [[0]]},
            on_token=ran.append,
        )
        assert output["length"].tolist() == [0]
        assert not ran

    def test_too_long_prompts_are_refused_before_the_encoder_is_run(self, monkeypatch):
        for name, inputs in (("llama", batch()), ("t5", {**batch(), "decoder_input_ids": [[2] * 5] * 3})):
            model = model_of(name)
            function = build_generate(model, model.config, config_of(model).configure(max_length=5))
            monkeypatch.setattr(type(model), "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
            monkeypatch.setattr(type(model), "get_encoder", lambda *args, **kwargs: pytest.fail("the encoder was run"))
            with pytest.raises(ValueError, match=r"has 5 tokens, but max_length is set to 5"):
                function(None, inputs)

    def test_max_length_counts_the_padded_prompt(self):
        model = model_of("gpt2")
        function = build_generate(model, model.config, config_of(model).configure(max_length=9))
        assert function(None, batch())["token_ids"].tolist() == expected(model, 4).tolist()

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({}, "input_ids are missing"),
            ({"input_ids": [[]]}, "at least one column"),
            ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "attention mask"),
            ({"input_ids": [[1.5]]}, "integers"),
        ],
    )
    def test_other_wrong_inputs(self, inputs, message):
        with pytest.raises(ValueError, match=message):
            generate(model_of("llama"), inputs=inputs)

    def test_decoder_prompts(self):
        model = model_of("bart")
        prompts = {"decoder_input_ids": torch.tensor([[BOS, 7, 8], [BOS, 9, 4], [BOS, 5, 6]])}
        ids = model.generate(**batch(), **prompts, max_new_tokens=N_NEW, do_sample=False)
        output = generate(model, inputs={**batch(), **prompts})
        got = torch.nn.functional.pad(ids[:, 3:], (0, N_NEW - (ids.shape[1] - 3)), value=PAD)
        assert output["token_ids"].tolist() == got.tolist()
        padded = torch.tensor([[BOS, 7, 8, PAD], [PAD, BOS, 9, 4], [BOS, 5, 6, PAD]])
        mask = {"decoder_attention_mask": (padded != PAD).long()}
        assert generate(model_of("t5"), inputs={**batch(), "decoder_input_ids": padded, **mask})[
            "token_ids"
        ].tolist() == (generate(model_of("t5"), inputs={**batch(), **prompts})["token_ids"].tolist())

    @pytest.mark.parametrize("strategy", [GREEDY, BEAMS, CONTRASTIVE], ids=lambda s: s["type"])
    @pytest.mark.parametrize("cache", ["dynamic", None])
    def test_the_encoder_is_run_once(self, cache, strategy):
        model = model_of("t5")
        calls = []
        handle = model.get_encoder().register_forward_hook(lambda *args: calls.append(1))
        generate(model, strategy, spec=TransformersSpec(model.config, cache))
        handle.remove()
        assert len(calls) == 1


class TestParams:
    @pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
    def test_other_weights(self, name):
        model = model_of(name)
        torch.manual_seed(99)
        other = ARCHITECTURES[name]().eval()
        function = build_generate(model, model.config, config_of(model))
        before = function(None, batch())["token_ids"].tolist()
        assert function(other.state_dict(), batch())["token_ids"].tolist() == generate(other)["token_ids"].tolist()
        assert function(None, batch())["token_ids"].tolist() == before != generate(other)["token_ids"].tolist()

    def test_unknown_names(self):
        model = model_of("llama")
        with pytest.raises(ValueError, match="no weights nonsense"):
            build_generate(model, model.config, config_of(model))({"nonsense": torch.zeros(1)}, batch())


class TestHook:
    @pytest.mark.parametrize("strategy", [GREEDY, CONTRASTIVE], ids=lambda s: s["type"])
    def test_it_tells_the_text(self, strategy):
        events = []
        output = generate(model_of("gpt2"), strategy, on_token=events.append)
        told = torch.stack([event["token_id"] for event in events], 1)
        assert told.tolist() == output["token_ids"][:, : len(events)].tolist()
        for step, event in enumerate(events, 1):
            assert event["length"].tolist() == [min(step, n) for n in output["length"].tolist()]
            assert event["finished"].tolist() == [n <= step for n in output["length"].tolist()]
            assert all(
                token == PAD for token, n in zip(event["token_id"].tolist(), output["length"], strict=True) if n < step
            )
        assert len(events) == output["length"].max()
        assert len({*output["length"].tolist()}) > 1

    def test_ignored_output(self):
        events = []
        output = generate(model_of("llama"), build={"ignore_output": True}, on_token=events.append)
        assert output.tolist() == [0, 0, 0]
        assert len(events) == generate(model_of("llama"))["length"].max()

    def test_beams_have_no_hook(self):
        with pytest.raises(ValueError, match="beam search"):
            generate(model_of("llama"), BEAMS, on_token=lambda event: None)


class TestSampling:
    def probabilities(self, model, prompt, **options) -> dict[tuple[int, ...], float]:
        """The exact distribution of texts of two tokens, by transformers' own warpers."""
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        warpers = LogitsProcessorList()
        if "temperature" in options:
            warpers.append(TemperatureLogitsWarper(options["temperature"]))
        if "top_k" in options:
            warpers.append(TopKLogitsWarper(options["top_k"]))
        if "top_p" in options:
            warpers.append(TopPLogitsWarper(options["top_p"]))

        def next_(ids):
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[:, -1]
            return warpers(None, logits).softmax(1)[0].tolist()

        found = {}
        for first, p in enumerate(next_(prompt)):
            if p and first in ENDS:
                found[first, PAD] = p
            elif p:
                found.update({(first, second): p * q for second, q in enumerate(next_([*prompt, first])) if q})
        return found

    @pytest.mark.parametrize(
        "options",
        [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.7}, {"temperature": 1.5, "top_k": 9, "top_p": 0.8}],
        ids=str,
    )
    def test_the_distribution(self, options):
        model, n = model_of("llama"), 6000
        prompt = [5, 6, 7]
        exact = self.probabilities(model, prompt, **options)
        strategy = {**SAMPLING, **{key: value for key, value in options.items() if key != "temperature"}}
        inputs = {"input_ids": [prompt] * n, "seed": range(1000, 1000 + n)}
        inputs["seed"] = torch.tensor([*inputs["seed"]])
        output = generate(model, strategy, inputs, max_new_tokens=2, temperature=options.get("temperature"))
        counts: dict[tuple[int, ...], int] = {}
        for row in output["token_ids"].tolist():
            counts[tuple(row)] = counts.get(tuple(row), 0) + 1
        assert set(counts) <= set(exact)
        # Pearson's statistic over the texts that are expected often enough, the others put together.
        large = {text for text, p in exact.items() if p * n >= 5}
        cells = [(counts.get(text, 0), exact[text] * n) for text in large]
        rest = n - sum(count for count, _ in cells), n - sum(mean for _, mean in cells)
        cells += [rest] if rest[1] >= 5 else []
        statistic = sum((count - mean) ** 2 / mean for count, mean in cells)
        degrees = len(cells) - 1
        assert statistic < degrees + 5 * (2 * degrees) ** 0.5 + 10

    def test_a_row_depends_on_its_seed_alone(self):
        model = model_of("llama")
        inputs = {"input_ids": [[5, 6], [5, 6], [7, 8]], "seed": [11, 12, 11]}
        rows = generate(model, SAMPLING, inputs)["token_ids"].tolist()
        assert rows[0] != rows[1]
        swapped = {"input_ids": [[7, 8], [5, 6]], "seed": torch.tensor([11, 11])}
        assert generate(model, SAMPLING, swapped)["token_ids"].tolist() == [rows[2], rows[0]]

    @pytest.mark.parametrize("strategy", [SAMPLING, CONTRASTIVE], ids=lambda s: s["type"])
    def test_temperature_zero_is_greedy(self, strategy):
        model = model_of("gpt2")
        inputs = {**batch(), "seed": [1, 2, 3]}
        assert generate(model, strategy, inputs, temperature=0.0)["token_ids"].tolist() == (
            generate(model)["token_ids"].tolist()
        )

    @pytest.mark.parametrize("seed", [None, [1, 2], 5, [1.5, 2.5, 3.5]])
    def test_seeds_are_one_int_a_row(self, seed):
        with pytest.raises(ValueError, match="seed"):
            generate(model_of("llama"), SAMPLING, {**batch(), "seed": seed})


class Counter:
    """A stateful processor that makes row r say r * 10 + 1, r * 10 + 2 ...; its state is in every form there is."""

    def init(self, ctx):
        n = ctx.sequences.shape[0]
        assert ctx.length == ctx.input_length
        return {"row": torch.arange(n), "said": ([[] for _ in range(n)], 0)}

    def process(self, state, logits, ctx):
        said, step = state["said"]
        tokens = (state["row"] % 4) * 10 + 31 + step
        forced = torch.full_like(logits, -float("inf")).scatter(1, tokens[:, None], 0.0)
        if step:
            assert [row[-1] for row in said] == ctx.ids[:, -1].tolist()
        said = [[*row, int(token)] for row, token in zip(said, tokens, strict=True)]
        return {"row": state["row"], "said": (said, step + 1)}, forced


class TestProcessors:
    @pytest.mark.parametrize("n_rows", [1, 2, 3])
    def test_a_state_goes_along(self, n_rows):
        prompts = PROMPTS[:n_rows]
        output = generate(
            model_of("gpt2"), inputs=batch(prompts), build={"logits_processors": [Counter()]}, max_new_tokens=3
        )
        assert output["token_ids"].tolist() == [[r * 10 + 31, r * 10 + 32, r * 10 + 33] for r in range(n_rows)]

    def test_a_state_moves_with_its_beam(self):
        class Follows:
            """Keeps what each row has said, in a list and in a tensor; both must be what the loop shows."""

            def init(self, ctx):
                n = ctx.sequences.shape[0]
                return [[] for _ in range(n)], torch.zeros((n, 0), dtype=torch.int64), "shared"

            def process(self, state, logits, ctx):
                rows, tensor, shared = state
                assert shared == "shared"
                if ctx.length > ctx.input_length:
                    last = ctx.ids[:, -1]
                    rows = [[*row, token] for row, token in zip(rows, last.tolist(), strict=True)]
                    tensor = torch.cat([tensor, last[:, None]], 1)
                said = ctx.ids[:, ctx.input_length :].tolist()
                assert rows == tensor.tolist() == said
                return (rows, tensor, shared), logits

        model = model_of("llama")
        output = generate(model, BEAMS, build={"logits_processors": [Follows()]})
        assert output["token_ids"].tolist() == expected(model, N_NEW, num_beams=3).tolist()

    def test_functions_and_those_of_transformers(self):
        model = model_of("gpt2")
        theirs = RepetitionPenaltyLogitsProcessor(1.5)
        want = expected(model, N_NEW, logits_processor=LogitsProcessorList([theirs]))
        for processor in (theirs, lambda logits, ctx: theirs(ctx.ids, logits)):
            assert generate(model, build={"logits_processors": [processor]})["token_ids"].tolist() == want.tolist()

    @pytest.mark.parametrize("strategy", [GREEDY, BEAMS], ids=lambda s: s["type"])
    def test_a_logits_processor_of_ours(self, strategy):
        """It recognizes the rows by what they say, begins anew with each call, and does what `guide` does."""
        guide = oc.compile_regex(PATTERN, VOCABULARY)
        build = {"logits_processors": [GuideLogitsProcessor(None, guide, max_new_tokens=6)]}
        options = {"max_new_tokens": 6, "eos_token_id": 1}
        want = generate(model_of("llama"), strategy, guide=guide, **options)["token_ids"].tolist()
        for _ in range(2):
            assert generate(model_of("llama"), strategy, build=build, **options)["token_ids"].tolist() == want

    def test_they_run_after_all_of_the_config(self):
        seen = []

        def look(logits, ctx):
            seen.append((logits > -float("inf")).sum(1).tolist())
            return logits

        generate(
            model_of("gpt2"),
            {**SAMPLING, "top_k": 5},
            {**batch(), "seed": [1, 2, 3]},
            build={"logits_processors": [look]},
            temperature=0.7,
        )
        assert seen[0] == [5, 5, 5]

    def test_what_is_no_processor(self):
        with pytest.raises(TypeError, match="logits processor"):
            generate(model_of("gpt2"), build={"logits_processors": [7]})

    def test_a_processor_that_changes_the_shape(self):
        with pytest.raises(ValueError, match="shape"):
            generate(model_of("gpt2"), build={"logits_processors": [lambda logits, ctx: logits[:, :5]]})

    @pytest.mark.parametrize("strategy", [GREEDY, CONTRASTIVE, SAMPLING], ids=lambda s: s["type"])
    def test_nothing_left(self, strategy):
        class Nothing(LogitsProcessor):
            def __call__(self, input_ids, scores):
                return torch.full_like(scores, -float("inf"))

        with pytest.raises(ValueError, match="no token is left"):
            generate(
                model_of("gpt2"), strategy, {**batch(), "seed": [1, 2, 3]}, build={"logits_processors": [Nothing()]}
            )
        with pytest.raises(GuideError, match="dead end"):
            generate(model_of("gpt2"), BEAMS, build={"logits_processors": [Nothing()]})


TEXT = {chr(ord("a") + k): [44 + k] for k in range(10)} | {"ab": [54], "cde": [55], "0": [56], "1": [57], "fg": [58]}
VOCABULARY = oc.Vocabulary(1, TEXT, size=SIZE)
PATTERN = "(ab|cde|f){1,3}[01]{2}g?"


def text_of(row, length) -> str:
    return b"".join(VOCABULARY.token_bytes(token) for token in row[:length]).decode()


class TestGuides:
    @pytest.mark.parametrize("name", ["llama", "t5"])
    @pytest.mark.parametrize("strategy", [GREEDY, BEAMS, CONTRASTIVE, SAMPLING], ids=lambda s: s["type"])
    @pytest.mark.parametrize("n_new", [4, 6, 12])
    def test_texts_obey_and_are_whole(self, name, strategy, n_new):
        guide = oc.compile_regex(PATTERN, VOCABULARY)
        inputs = {**batch(), "seed": [1, 2, 3]}
        output = generate(model_of(name), strategy, inputs, guide=guide, max_new_tokens=n_new, eos_token_id=1)
        for row, length in zip(output["token_ids"].tolist(), output["length"].tolist(), strict=True):
            assert re.fullmatch(PATTERN, text_of(row, length))
            assert row[length:] == [PAD] * (n_new - length)

    @pytest.mark.parametrize("num_beams", [1, 3])
    @pytest.mark.parametrize("closes", [True, False])
    def test_equal_to_the_logits_processor_in_transformers(self, num_beams, closes):
        model, guide = model_of("gpt2"), oc.compile_regex(PATTERN, VOCABULARY)
        processor = GuideLogitsProcessor(None, guide, max_new_tokens=5 if closes else None)
        options = {"num_beams": num_beams, "eos_token_id": 1}
        want = expected(model, 5, logits_processor=LogitsProcessorList([processor]), **options)
        strategy = GREEDY if num_beams == 1 else {**BEAMS, "num_beams": num_beams}
        build = {"guide": guide, "close_guides": closes}
        output = generate(model, strategy, build=build, max_new_tokens=5, eos_token_id=1)
        assert output["token_ids"].tolist() == want.tolist()

    def test_one_a_row(self):
        guides = [oc.compile_regex(p, VOCABULARY) for p in ("a{1,4}", "(cde)+", "[01]*g")]
        for strategy, closes in itertools.product((GREEDY, BEAMS), (True, False)):
            build = {"guide": guides, "close_guides": closes}
            output = generate(model_of("llama"), strategy, build=build, eos_token_id=1)
            for row, length, guide in zip(output["token_ids"].tolist(), output["length"].tolist(), guides, strict=True):
                state = guide.accept_tokens(guide.initial_state, row[:length])
                assert state[0] == length
                assert guide.is_accepting(state[1]) or (length == N_NEW and not closes)

    def test_sampling_is_exact(self):
        """Mask first, then temperature and truncation: the conditional distribution of the first token."""
        model, n = model_of("llama"), 4000
        guide = oc.compile_regex("[a-e]", VOCABULARY)
        with torch.no_grad():
            logits = model(torch.tensor([[5, 6, 7]])).logits[0, -1, 44:49]
        best = (logits / 0.8).topk(3)
        exact = dict(zip((44 + best.indices).tolist(), best.values.softmax(0).tolist(), strict=True))
        inputs = {"input_ids": [[5, 6, 7]] * n, "seed": [*range(n)]}
        options = {"max_new_tokens": 1, "temperature": 0.8, "eos_token_id": 1}
        output = generate(model, {**SAMPLING, "top_k": 3}, inputs, guide=guide, **options)
        counts = torch.bincount(output["token_ids"][:, 0], minlength=SIZE).tolist()
        assert {token for token, count in enumerate(counts) if count} == set(exact)
        for token, p in exact.items():
            assert abs(counts[token] - n * p) < 5 * (n * p * (1 - p)) ** 0.5

    def test_the_end_of_a_guide_ends_a_row(self):
        vocabulary = oc.Vocabulary(59, TEXT, size=SIZE)
        output = generate(
            model_of("llama"), guide=oc.compile_regex("ab?", vocabulary), eos_token_id=None, pad_token_id=PAD
        )
        for row, length in zip(output["token_ids"].tolist(), output["length"].tolist(), strict=True):
            assert row[length - 1] == 59
            assert text_of(row, length - 1) in ("a", "ab")

    def test_the_end_tokens_of_the_config_end_a_guided_text(self):
        """Those of the vocabulary that are not among them are no end then."""
        vocabulary = oc.Vocabulary((59, 58), {key: ids for key, ids in TEXT.items() if ids != [58]}, size=SIZE)
        output = generate(model_of("llama"), guide=oc.compile_regex("ab?", vocabulary), eos_token_id=(59, 60))
        for row, length in zip(output["token_ids"].tolist(), output["length"].tolist(), strict=True):
            assert row[length - 1] in (59, 60)

    def test_too_little_room(self, monkeypatch):
        model, guide = model_of("llama"), oc.compile_regex("a{30}", VOCABULARY)
        monkeypatch.setattr(type(model), "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
        with pytest.raises(GuideError, match="takes 30 tokens"):
            generate(model, guide=guide, eos_token_id=1)

    def test_rules_that_contradict_a_guide(self):
        guide = oc.compile_regex("a{2,20}", VOCABULARY)
        with pytest.raises(GuideError, match="contradict"):
            generate(model_of("llama"), guide=guide, eos_token_id=1, suppressed_token_ids=[44])
        with pytest.raises(GuideError, match="dead end"):
            generate(model_of("llama"), BEAMS, guide=guide, eos_token_id=1, suppressed_token_ids=[44])

    def test_a_processor_cannot_allow_what_a_guide_forbids(self):
        guide = oc.compile_regex("a{2,20}", VOCABULARY)
        with pytest.raises(TokenRejectedError, match="forbidden token id 45"):
            generate(
                model_of("llama"),
                build={"logits_processors": [lambda logits, ctx: logits.index_fill(1, torch.tensor([45]), 99.0)]},
                guide=guide,
                eos_token_id=1,
            )

    def test_wrong_guides(self):
        guide = oc.compile_regex("a", VOCABULARY)
        with pytest.raises(ValueError, match="2 guides for 3 prompts"):
            generate(model_of("llama"), guide=[guide, guide], eos_token_id=1)
        with pytest.raises(ValueError, match="is text"):
            generate(model_of("llama"), guide=guide, eos_token_id=44)
        with pytest.raises(TypeError, match="guide"):
            generate(model_of("llama"), guide=5, eos_token_id=1)


class TestStops:
    @pytest.mark.parametrize("strategy", [GREEDY, BEAMS, CONTRASTIVE], ids=lambda s: s["type"])
    def test_stop_strings(self, strategy):
        """Every text goes on in the same way up to the token that completes a stop string."""
        model = model_of("llama")
        guide = oc.compile_regex("(ab|cde|fg|0)*", VOCABULARY)  # texts that can be read
        options = {"guide": guide, "eos_token_id": 1, "build": {"tokenizer": VOCABULARY}}
        output = generate(model, strategy, stop_strings=["eab", "b0", "0f", "gf"], **options)
        stopped = 0
        for row, length in zip(output["token_ids"].tolist(), output["length"].tolist(), strict=True):
            text, before = text_of(row, length), text_of(row, length - 1)
            found = [stop in text for stop in ("eab", "b0", "0f", "gf")]
            assert any(found) or row[length - 1] == 1 or length == N_NEW
            assert not any(stop in before for stop in ("eab", "b0", "0f", "gf"))
            stopped += any(found)
        assert stopped

    def test_they_need_a_tokenizer(self):
        with pytest.raises(ValueError, match="tokenizer"):
            generate(model_of("llama"), stop_strings=["x"])


class TestModels:
    def test_a_compiled_model(self):
        """Its wrapper hides what its forward takes; padding must be masked all the same."""
        model = model_of("llama")
        compiled = torch.compile(model, backend="eager", dynamic=True)
        config = config_of(model, max_new_tokens=5)
        for cache in ("static", "dynamic"):
            function = build_generate(compiled, TransformersSpec(model.config, cache), config)
            assert function(None, batch())["token_ids"].tolist() == expected(model, 5).tolist()
        torch.manual_seed(98)
        other = ARCHITECTURES["llama"]().eval()
        swapped = function(other.state_dict(), batch())["token_ids"].tolist()
        assert swapped == expected(other, 5).tolist()
        torch.compiler.reset()

    def test_a_cache_of_another_kind(self):
        config = MambaConfig(vocab_size=SIZE, hidden_size=16, num_hidden_layers=1, state_size=4, pad_token_id=PAD)
        torch.manual_seed(0)
        model = MambaForCausalLM(config).eval()
        own = GenerationConfig(max_new_tokens=5, pad_token_id=PAD)
        inputs = {"input_ids": [[5, 6, 7]]}
        with pytest.raises(UnsupportedFeatureError, match="MambaForCausalLM"):
            build_generate(model, config, own)(None, inputs)
        uncached = build_generate(model, TransformersSpec(config, cache=None), own)(None, inputs)["token_ids"]
        ids = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5, do_sample=False, eos_token_id=None)
        assert uncached.tolist() == ids[:, 3:].tolist()


class TestRefusals:
    def test_what_is_missing(self):
        model = model_of("llama")
        with pytest.raises(ValueError, match="neither"):
            build_generate(model, model.config, GenerationConfig(max_new_tokens=None, pad_token_id=0))
        with pytest.raises(ValueError, match="pad_token_id or eos_token_id"):
            build_generate(model, model.config, GenerationConfig())
        with pytest.raises(TypeError, match="spec"):
            build_generate(model, 5, config_of(model))
        with pytest.raises(TypeError, match="can generate"):
            build_generate(torch.nn.Linear(2, 2), model.config, config_of(model))
        t5 = model_of("t5")
        function = build_generate(t5, t5.config, GenerationConfig(eos_token_id=1))
        with pytest.raises(ValueError, match="decoder_start_token_id"):
            function(None, batch())
