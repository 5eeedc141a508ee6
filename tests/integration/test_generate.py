"""Constrained `model.generate()` in all its modes, on tiny random models.

Two independent oracles: `re.fullmatch` for what has ended, and for what has not, whether some text of the (finite)
language begins with it.
"""

import itertools
import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import outlines_core as oc
from outlines_core.errors import GuideError
from processors.guide import RegexGuide, StopAtEOSGuide
from processors.logits import GuideLogitsProcessor, RegexLogitsProcessor
from tests.toy_automaton import ToyAutomaton

PAD, EOS, BOS = 0, 1, 2
TOKENS = ["a", "b", "c", "d", "0", "1", "ab", "abc", "ca", "cc", "bab", "d0", "01", "10", "1c", "abab", "é", " ", "x"]
VOCABULARY = oc.Vocabulary(
    EOS, {token: [3 + k] for k, token in enumerate(TOKENS)}, special_tokens={"<pad>": PAD, "<s>": BOS}
)
SIZE = 32  # wider than the vocabulary
PATTERN = "(ab|c){1,4}d?[01]{2}"
LANGUAGE = {
    "".join(rounds) + d + "".join(digits)
    for n in range(1, 5)
    for rounds in itertools.product(("ab", "c"), repeat=n)
    for d in ("", "d")
    for digits in itertools.product("01", repeat=2)
}
PREFIXES = {text[:k] for text in LANGUAGE for k in range(len(text) + 1)}
COMMON = {"pad_token_id": PAD, "eos_token_id": EOS, "max_new_tokens": 14}


def llama(seed: int = 0, layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        initializer_range=0.3,  # logits far apart: models with an opinion, drafts that are accepted and refused
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return llama()


class Recorder(GuideLogitsProcessor):
    """A processor that notes what it was shown."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lengths, self.row_counts = [], []

    def process_logits(self, input_ids, logits):
        self.lengths.append(input_ids.shape[1])
        self.row_counts.append(input_ids.shape[0])
        before = logits.clone()
        result = super().process_logits(input_ids, logits)
        assert torch.equal(logits, before)
        assert torch.isfinite(result).any(1).all()
        return result

    @property
    def shrank(self) -> bool:
        return any(b <= a for a, b in itertools.pairwise(self.lengths[1:]))


def recorder(pattern: str = PATTERN, **kwargs) -> Recorder:
    return Recorder(None, oc.compile_regex(pattern, VOCABULARY), **kwargs)


def text_of(ids) -> tuple[str, bool]:
    """The text up to EOS (or padding), and whether there was an EOS."""
    ids = [int(i) for i in ids]
    ended = EOS in ids
    ids = ids[: ids.index(EOS)] if ended else ids
    return b"".join(VOCABULARY.token_bytes(i) for i in ids).decode(), ended


def check(rows, prompt_length: int, pattern: str = PATTERN, prefixes=PREFIXES) -> int:
    """Every row obeys the pattern; returns how many have ended."""
    n_ended = 0
    for row in rows:
        text, ended = text_of(row[prompt_length:])
        if ended:
            assert re.fullmatch(pattern, text), text
        else:
            assert text in prefixes, text
        n_ended += ended
    return n_ended


def prompt(*ids: int) -> dict[str, torch.Tensor]:
    row = torch.tensor([ids or (BOS, 5, 6)])
    return {"input_ids": row, "attention_mask": torch.ones_like(row)}


def padded(*rows: tuple[int, ...]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[PAD] * (width - len(row)) + list(row) for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
    }


def test_the_oracles_agree():
    assert all(re.fullmatch(PATTERN, text) for text in LANGUAGE)
    assert oc.compile_regex(PATTERN, VOCABULARY).is_accepting(2) is False


class TestModes:
    def test_greedy(self, model):
        processor = recorder()
        out = model.generate(**prompt(), **COMMON, do_sample=False, logits_processor=[processor])
        assert check(out, 3) == 1
        assert processor.violations == 0
        assert processor.lengths == list(range(3, 3 + len(processor.lengths)))

    @pytest.mark.parametrize("seed", range(5))
    def test_sampling_with_several_returns(self, model, seed):
        torch.manual_seed(seed)
        processor = recorder()
        out = model.generate(
            **prompt(), **COMMON, do_sample=True, num_return_sequences=6, temperature=1.5, logits_processor=[processor]
        )
        assert len(out) == 6
        assert check(out, 3) == 6
        assert processor.violations == 0

    @pytest.mark.parametrize("length_penalty", [0.0, 1.0])
    @pytest.mark.parametrize("early_stopping", [False, True, "never"])
    def test_beam_search(self, model, length_penalty, early_stopping):
        out = model.generate(
            **prompt(),
            **COMMON,
            num_beams=4,
            num_return_sequences=4,
            do_sample=False,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            logits_processor=[recorder()],
        )
        assert len({tuple(row) for row in out.tolist()}) == 4
        assert check(out, 3) >= 1

    def test_beam_search_equals_exhaustive_search(self, model):
        """Enough beams for all of a small language: the best is the best of all spellings of all texts."""
        pattern, texts = "(ab|c)d?", ["ab", "c", "abd", "cd"]
        tokens = {VOCABULARY.token_bytes(t).decode(): t for t in range(3, 3 + len(TOKENS))}

        def spellings(text):
            return [[]] if not text else [
                [tokens[text[:k]], *rest]
                for k in range(1, len(text) + 1)
                if text[:k] in tokens
                for rest in spellings(text[k:])
            ]  # fmt: skip

        def logprob(ids):
            whole = torch.tensor([[BOS, 5, 6, *ids, EOS]])
            scores = torch.log_softmax(model(whole).logits[0, 2:-1].float(), -1)
            return scores.gather(1, whole[0, 3:, None]).sum().item()

        with torch.no_grad():
            best = max((s for text in texts for s in spellings(text)), key=logprob)
        out = model.generate(
            **prompt(),
            **COMMON,
            num_beams=12,
            do_sample=False,
            length_penalty=0.0,
            early_stopping="never",
            logits_processor=[recorder(pattern)],
        )
        assert out[0, 3:].tolist() == [*best, EOS]

    @pytest.mark.parametrize("seed", range(4))
    def test_beam_sampling(self, model, seed):
        torch.manual_seed(seed)
        out = model.generate(
            **prompt(),
            **COMMON,
            num_beams=4,
            num_return_sequences=2,
            do_sample=True,
            logits_processor=[recorder()],
        )
        check(out, 3)

    def test_more_beams_than_texts(self, model):
        """Beams that cannot be filled: ended rows come back to the processor."""
        method = {"num_beams": 8, "num_return_sequences": 2, "do_sample": False}
        out = model.generate(**prompt(), **COMMON, **method, logits_processor=[recorder("ab|c")])
        assert check(out, 3, "ab|c", {"", "a", "ab", "c"}) == 2

    def test_left_padded_batch(self, model):
        processor = recorder()
        inputs = padded((BOS, 5), (BOS, 5, 6, 7, 8, 9), (BOS, 5, 5, 5))
        out = model.generate(**inputs, **COMMON, do_sample=False, logits_processor=[processor])
        assert check(out, 6) == 3
        for r, row in enumerate(inputs["input_ids"]):  # each as if alone
            ids = row[inputs["attention_mask"][r] == 1][None]
            alone = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **COMMON,
                do_sample=False,
                logits_processor=[processor.copy()],
            )
            assert text_of(alone[0, ids.shape[1] :]) == text_of(out[r, 6:])

    @pytest.mark.parametrize(
        "method", [{"num_return_sequences": 3, "do_sample": True}, {"num_return_sequences": 3, "num_beams": 3}]
    )
    def test_one_guide_a_prompt(self, model, method):
        torch.manual_seed(0)
        patterns = ["(ab){2,3}", "[01]{3}c?"]
        processor = GuideLogitsProcessor(None, [oc.compile_regex(p, VOCABULARY) for p in patterns])
        out = model.generate(
            **padded((BOS, 5), (BOS, 5, 6)), **COMMON, **method, logits_processor=[processor]
        )  # fmt: skip
        for r, row in enumerate(out):
            text, ended = text_of(row[3:])
            assert not ended or re.fullmatch(patterns[r // 3], text)
        assert sum(text_of(row[3:])[1] for row in out) >= 4

    @pytest.mark.parametrize("do_sample", [False, True])
    def test_prompt_lookup(self, model, do_sample):
        torch.manual_seed(1)
        processor = recorder()
        spelled = [3 + TOKENS.index(t) for t in ("c", "ab", "c", "0", "1", "c", "ab", "ab", "d", "1")]
        shrank = False
        for k in range(6):
            out = model.generate(
                **prompt(BOS, *spelled, 5 + k),
                **COMMON,
                do_sample=do_sample,
                prompt_lookup_num_tokens=4,
                logits_processor=[processor],
            )
            assert check(out, 12) == 1
            shrank |= processor.shrank
            processor.lengths.clear()
        assert shrank
        assert processor.violations == 0

    @pytest.mark.parametrize("do_sample", [False, True])
    @pytest.mark.parametrize("same", [False, True])
    def test_assistant_model(self, model, do_sample, same):
        torch.manual_seed(2)
        processor = recorder()
        assistant = llama(0 if same else 1, 2 if same else 1)
        assistant.generation_config.num_assistant_tokens = 5
        outputs = []
        for k in range(4):
            outputs.append(
                model.generate(
                    **prompt(BOS, 5, 6 + k),
                    **COMMON,
                    do_sample=do_sample,
                    assistant_model=assistant,
                    logits_processor=[processor],
                )
            )
            assert check(outputs[-1], 3) == 1
        assert processor.shrank
        assert processor.violations == 0
        if not do_sample:
            for k, out in enumerate(outputs):
                plain = model.generate(
                    **prompt(BOS, 5, 6 + k), **COMMON, do_sample=False, logits_processor=[recorder()]
                )
                assert torch.equal(out, plain)

    def test_assistant_early_exit(self, model):
        processor = recorder()
        out = model.generate(
            **prompt(), **COMMON, do_sample=False, assistant_early_exit=1, logits_processor=[processor]
        )
        assert check(out, 3) == 1
        assert processor.shrank
        assert torch.equal(
            out, model.generate(**prompt(), **COMMON, do_sample=False, logits_processor=[processor.copy()])
        )

    def test_without_cache(self, model):
        outputs = [
            model.generate(**prompt(), **COMMON, do_sample=False, use_cache=cache, logits_processor=[recorder()])
            for cache in (True, False)
        ]
        assert torch.equal(*outputs)
        assert check(outputs[0], 3) == 1

    def test_inputs_embeds(self, model):
        embeds = model.get_input_embeddings()(torch.tensor([[BOS, 5, 6], [BOS, 7, 8]]))
        processor = recorder()
        for _ in range(2):
            out = model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(2, 3, dtype=torch.int64),
                **COMMON,
                do_sample=False,
                logits_processor=[processor],
            )
            assert check(out, 0) == 2
        assert processor.lengths[0] == 0

    def test_bfloat16_model(self):
        half = llama(3).to(torch.bfloat16)
        out = half.generate(**prompt(), **COMMON, do_sample=False, logits_processor=[recorder()])
        assert check(out, 3) == 1

    def test_any_automaton_and_guide(self, model):
        toy = ToyAutomaton({text.encode() for text in LANGUAGE}, VOCABULARY)
        guides = [toy, RegexGuide.from_regex(PATTERN, VOCABULARY), oc.compile_choice(sorted(LANGUAGE), VOCABULARY)]
        outputs = [
            model.generate(
                **prompt(),
                **COMMON,
                num_beams=3,
                num_return_sequences=3,
                do_sample=False,
                logits_processor=[GuideLogitsProcessor(None, guide)],
            )
            for guide in guides
        ]
        check(outputs[0], 3)
        assert all(torch.equal(outputs[0], out) for out in outputs[1:])

    def test_stop_at_eos_changes_nothing(self, model):
        processor = GuideLogitsProcessor(VOCABULARY, StopAtEOSGuide(VOCABULARY))
        with_guide, without = (
            model.generate(**prompt(), **COMMON, do_sample=False, logits_processor=processors)
            for processors in ([processor], None)
        )
        assert torch.equal(with_guide, without)


class TestArchitectures:
    def test_gpt2(self):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=BOS, eos_token_id=EOS
        )
        out = GPT2LMHeadModel(config).eval().generate(
            **padded((BOS, 5), (BOS, 5, 6)), **COMMON, do_sample=False, num_beams=2, logits_processor=[recorder()]
        )  # fmt: skip
        check(out, 3)

    @pytest.mark.parametrize("method", [{"do_sample": False}, {"num_beams": 4, "num_return_sequences": 2}])
    @pytest.mark.parametrize("kind", ["t5", "bart"])
    def test_encoder_decoder(self, kind, method):
        torch.manual_seed(0)
        if kind == "t5":
            config = T5Config(
                vocab_size=SIZE,
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                decoder_start_token_id=PAD,
                eos_token_id=EOS,
                pad_token_id=PAD,
            )
            model = T5ForConditionalGeneration(config).eval()
        else:
            config = BartConfig(
                vocab_size=SIZE,
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                max_position_embeddings=64,
                bos_token_id=BOS,
                eos_token_id=EOS,
                pad_token_id=PAD,
                decoder_start_token_id=BOS,
                forced_eos_token_id=None,
            )
            model = BartForConditionalGeneration(config).eval()
        processor = recorder()
        inputs = {
            "input_ids": torch.tensor([[5, 6, 7, EOS], [8, EOS, PAD, PAD]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        }
        for _ in range(2):
            out = model.generate(**inputs, **COMMON, **method, logits_processor=[processor])
            assert check(out, 1) >= 1
        assert processor.lengths[0] == 1


class TestUsedAgain:
    @pytest.mark.parametrize("method", [{"do_sample": True}, {"num_beams": 3, "num_return_sequences": 3}])
    def test_with_other_prompts(self, model, method):
        torch.manual_seed(0)
        processor = recorder()
        for row in [(BOS,), (BOS, 5, 6), (BOS, 5), (BOS, 5, 6), (9, 9, 9, 9, 9)]:
            check(model.generate(**prompt(*row), **COMMON, **method, logits_processor=[processor]), len(row))

    @pytest.mark.parametrize("n_more", [1, 2, 5])
    def test_the_prompt_extends_the_first_output(self, model, n_more):
        processor = recorder()
        first = model.generate(**prompt(), **COMMON, do_sample=False, logits_processor=[processor])
        longer = [*first[0].tolist(), *range(5, 5 + n_more)]
        second = model.generate(**prompt(*longer), **COMMON, do_sample=False, logits_processor=[processor])
        assert check(second, len(longer)) == 1

    @pytest.mark.parametrize(
        "method",
        [
            {"do_sample": False},
            {"num_beams": 3, "do_sample": False},
            {"do_sample": False, "prompt_lookup_num_tokens": 3},
            {"do_sample": False, "assistant": True},
        ],
    )
    def test_prompts_that_the_call_before_has_seen(self, model, method):
        """Its whole output, and every beginning of it: never taken for a continuation."""
        method = dict(method)
        if method.pop("assistant", False):
            method["assistant_model"] = llama(1, 1)
        processor = recorder()
        first = model.generate(**prompt(), **COMMON, **method, logits_processor=[processor])[0].tolist()
        for end in range(len(first), 2, -1):
            again = model.generate(**prompt(*first[:end]), **COMMON, **method, logits_processor=[processor])
            alone = model.generate(**prompt(*first[:end]), **COMMON, **method, logits_processor=[processor.copy()])
            assert torch.equal(again, alone)
            assert check(again, end) == 1
            model.generate(**prompt(), **COMMON, **method, logits_processor=[processor])
            cut = {**COMMON, "max_new_tokens": end}
            model.generate(**prompt(), **cut, **method, logits_processor=[processor])
            assert torch.equal(
                model.generate(**prompt(*first[:end]), **COMMON, **method, logits_processor=[processor]), alone
            )

    def test_after_assisted_generation(self, model):
        processor = recorder()
        for k in range(3):
            out = model.generate(
                **prompt(BOS, 5, 6 + k), **COMMON, do_sample=False, assistant_model=model, logits_processor=[processor]
            )
            assert check(out, 3) == 1
            longer = [*out[0].tolist(), 5, 5]
            out = model.generate(**prompt(*longer), **COMMON, do_sample=True, logits_processor=[processor])
            assert check(out, len(longer)) == 1


class TestOtherProcessors:
    def test_contradiction_with_min_new_tokens(self, model):
        with pytest.raises(GuideError, match="row 0: the guide allows only token id 1 here.*min_new_tokens"):
            model.generate(
                **prompt(), **COMMON, do_sample=False, min_new_tokens=10, logits_processor=[recorder("ab|c")]
            )

    def test_contradiction_with_suppress_tokens(self, model):
        with pytest.raises(GuideError, match="suppress_tokens"):
            model.generate(
                **prompt(),
                **COMMON,
                do_sample=False,
                suppress_tokens=[3 + TOKENS.index("x")],
                logits_processor=[recorder("x")],
            )

    def test_min_new_tokens_where_it_is_possible(self, model):
        pattern = "[01]+"
        out = model.generate(
            **prompt(),
            **{**COMMON, "max_new_tokens": 20},
            do_sample=True,
            min_new_tokens=6,
            num_return_sequences=4,
            logits_processor=[recorder(pattern)],
        )
        for row in out:
            text, _ = text_of(row[3:])
            assert re.fullmatch(pattern, text)
            assert len(row[3:][row[3:] != PAD]) >= 6

    def test_repetition_penalty_top_k_top_p(self, model):
        torch.manual_seed(0)
        out = model.generate(
            **prompt(),
            **COMMON,
            do_sample=True,
            num_return_sequences=5,
            repetition_penalty=1.7,
            no_repeat_ngram_size=4,
            top_k=3,
            top_p=0.8,
            temperature=0.7,
            renormalize_logits=True,
            remove_invalid_values=True,
            logits_processor=[recorder()],
        )
        assert check(out, 3) == 5

    def test_output_logits_are_those_of_the_model(self, model):
        arguments = {
            **COMMON,
            "do_sample": False,
            "return_dict_in_generate": True,
            "output_logits": True,
            "output_scores": True,
        }
        out = model.generate(**prompt(), **arguments, logits_processor=[recorder()])
        n = len(out.logits)
        with torch.no_grad():
            logits = model(out.sequences[:, :-1]).logits[0, -n:]
        for k in range(n):
            torch.testing.assert_close(out.logits[k][0], logits[k], atol=1e-4, rtol=1e-4)
            open_ = torch.isfinite(out.scores[k])
            assert torch.equal(out.scores[k][open_], out.logits[k][open_])
            assert not open_.all()

    def test_other_stopping_criteria_end_rows(self, model):
        """Rows that a stop string has ended are padded; the others go on."""

        class WithPad:
            eos_token_id, pad_token_id = EOS, PAD

        processor = GuideLogitsProcessor(WithPad(), oc.compile_regex("[ab]{12}", VOCABULARY), on_violation="raise")
        stop_first = [lambda ids, _scores: torch.tensor([ids.shape[1] > 4, False])]
        out = model.generate(
            **padded((BOS, 5), (BOS, 5, 6)),
            **COMMON,
            do_sample=False,
            stopping_criteria=stop_first,
            logits_processor=[processor],
        )
        assert out[0, 5:].eq(PAD).all()
        assert re.fullmatch("[ab]{12}", text_of(out[1, 3:])[0])


class TestBudgets:
    @pytest.mark.parametrize(
        "method",
        [
            {"do_sample": True, "num_return_sequences": 8},
            {"do_sample": False},
            {"do_sample": False, "assistant": True},
            {"do_sample": False, "num_beams": 4, "num_return_sequences": 4},
            {"do_sample": True, "prompt_lookup_num_tokens": 3},
        ],
    )
    @pytest.mark.parametrize("n", [2, 3, 5, 9])
    def test_texts_are_closed_in_time(self, model, method, n):
        torch.manual_seed(n)
        pattern = "(ab|c){1,40}d?[01]{2}"
        processor = recorder(pattern, max_new_tokens=n)
        method = dict(method)
        if method.pop("assistant", False):
            method["assistant_model"] = llama(1, 1)
        out = model.generate(**prompt(), **{**COMMON, "max_new_tokens": n}, **method, logits_processor=[processor])
        complete = 0
        for row in out:
            text, ended = text_of(row[3:])
            complete += re.fullmatch(pattern, text.rstrip()) is not None
            assert not ended or re.fullmatch(pattern, text)
        # All of them, but for beams that could not be filled.
        assert complete == len(out) or ("num_beams" in method and n == 2 and complete >= 1)

    def test_too_small_a_budget(self, model):
        with pytest.raises(GuideError, match="max_new_tokens=1 is too small.* takes 2 tokens"):
            model.generate(**prompt(), **COMMON, logits_processor=[recorder(max_new_tokens=1)])

    @pytest.mark.parametrize("marker", ["ab1c", " "])
    def test_start_after(self, model, marker):
        torch.manual_seed(0)
        for n in (8, 20, 60):
            processor = recorder(start_after=marker, max_new_tokens=n)
            out = model.generate(
                **prompt(),
                **{**COMMON, "max_new_tokens": n},
                do_sample=True,
                num_return_sequences=6,
                temperature=3.0,
                suppress_tokens=[],
                logits_processor=[processor],
            )
            done = 0
            for row in out:
                thought, found, answer = text_of(row[3:])[0].partition(marker)
                assert thought.isprintable()
                done += bool(found)
                assert not found or re.fullmatch(PATTERN, answer)
            assert done >= 1
            assert processor.violations == 0


class TestRefusals:
    def test_continuous_batching(self, model):
        for call in (
            lambda: model.generate_batch([[BOS, 5]], logits_processor=[recorder()]),
            lambda: model.generate(**prompt(), cache_implementation="paged", logits_processor=[recorder()]),
        ):
            with pytest.raises(oc.UnsupportedFeatureError, match="continuous batching"):
                call()

    @pytest.mark.parametrize("do_sample", [False, True])
    @pytest.mark.parametrize("size", [SIZE - 8, SIZE + 8])
    def test_assistants_with_another_tokenizer(self, model, do_sample, size):
        def tokenizer(tokens):
            table = {"<pad>": PAD, "</s>": EOS, "<s>": BOS, **{t: 3 + k for k, t in enumerate(tokens)}}
            backend = Tokenizer(models.BPE(vocab=table, merges=[], unk_token="x"))
            return PreTrainedTokenizerFast(
                tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", bos_token="<s>"
            )

        torch.manual_seed(0)
        config = LlamaConfig(**{**model.config.to_dict(), "vocab_size": size})
        assistant = LlamaForCausalLM(config).eval()
        with pytest.raises(oc.UnsupportedFeatureError, match="another tokenizer"):
            model.generate(
                **prompt(3, 4, 5),
                **COMMON,
                do_sample=do_sample,
                assistant_model=assistant,
                tokenizer=tokenizer(TOKENS),
                assistant_tokenizer=tokenizer(TOKENS[::-1]),
                logits_processor=[recorder()],
            )

    def test_uneven_rows(self, model):
        processor = GuideLogitsProcessor(None, [oc.compile_regex("a", VOCABULARY)] * 2)
        with pytest.raises(ValueError, match="3 rows cannot be shared equally by 2 guides"):
            model.generate(**padded((5,), (6,), (7,)), **COMMON, logits_processor=[processor])

    def test_another_model(self, model):
        wide = oc.Vocabulary(EOS, {"a": [3], "b": [200]})
        with pytest.raises(ValueError, match="another model"):
            model.generate(**prompt(), **COMMON, logits_processor=[RegexLogitsProcessor("[ab]", wide)])


def test_masks_are_complete_on_a_path(model):
    """Along generated texts, the allowed ids are those that keep some text of the language possible."""
    torch.manual_seed(4)
    out = model.generate(
        **prompt(),
        **COMMON,
        do_sample=True,
        num_return_sequences=4,
        return_dict_in_generate=True,
        output_scores=True,
        logits_processor=[recorder()],
    )
    live = [True] * 4
    for k, scores in enumerate(out.scores):
        for r in range(4):
            text, ended = text_of(out.sequences[r, 3 : 3 + k])
            live[r] = live[r] and not ended
            if live[r]:
                expected = {3 + i for i, t in enumerate(TOKENS) if text + t in PREFIXES}
                expected |= {EOS} if text in LANGUAGE else set()
                assert set(np.flatnonzero(np.isfinite(scores[r].numpy())).tolist()) == expected
