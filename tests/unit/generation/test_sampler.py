"""`Sampler` against `transformers.generate()`, against itself in other batches and turns, and against exact
distributions."""

import copy
import itertools
import re

import numpy as np
import pytest
import torch

import outlines_core as oc
from outlines_core.errors import GuideError, UnsupportedFeatureError
from processors import load_embedded, vocabulary_from
from processors.generation import RandomSampling, Sampler, TopkSampling, TopPSampling
from tests.sampler_models import (
    BOS,
    EOS,
    MODELS,
    PAD,
    TOKENS,
    VOCABULARY,
    chi_square,
    gpt2,
    lfm2,
    llama,
    logprobs_after,
    mistral,
    reference,
    rows_of,
)

PROMPTS = [[BOS, 5, 9, 3, 3, 7], [BOS, 4], [BOS, 8, 6, 10, 11, 12, 13, 14, 3]]


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


def sampler(model, **options) -> Sampler:
    return Sampler(model, tokenizer=VOCABULARY, **options)


def run(model, prompts, *, n=12, options=None, **call):
    return sampler(model, **(options or {})).sample(prompts, max_new_tokens=n, return_state=True, **call)


class TestGreedy:
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_transformers(self, name, seed):
        model = MODELS[name](seed)
        expected = reference(model, PROMPTS, 20)
        assert rows_of(run(model, PROMPTS, n=20)) == expected
        for prompt, row in zip(PROMPTS, expected, strict=True):
            output = run(model, prompt, n=20)
            assert rows_of(output) == [row]
            assert output.tokens.shape == output.logprobs.shape == (len(row),)

    def test_another_set_of_weights(self):
        params = dict(llama(3).named_parameters())
        assert rows_of(run(llama(0), PROMPTS, options={"params": params})) == reference(llama(3), PROMPTS, 12)

    def test_text_of_the_embedded_model(self, embedded):
        model, tokenizer = embedded
        prompts = ["A ticket: ", "Dear Sir, the name of"]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True)
        out = model.generate(**inputs, do_sample=False, max_new_tokens=24)[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(out, skip_special_tokens=True)
        got = Sampler(model, tokenizer=tokenizer).sample(prompts, max_new_tokens=24)
        assert got == texts
        assert Sampler(model, tokenizer=tokenizer).sample(prompts[0], max_new_tokens=24) == texts[0]

    def test_logprobs_are_the_models(self):
        guide = oc.compile_regex("(ab|c)+d[01]+", VOCABULARY)
        for call in ({}, {"guide": guide}, {"sampling": RandomSampling(temperature=3), "rng": 1}):
            output = run(llama(), PROMPTS, **call)
            for prompt, row, logprobs in zip(PROMPTS, rows_of(output), output.logprobs.tolist(), strict=True):
                for k, token in enumerate(row):
                    expected = logprobs_after(llama(), prompt + row[:k])[token]
                    assert logprobs[k] == pytest.approx(float(expected), abs=1e-4)
                assert not any(logprobs[len(row) :])


class TestTurns:
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("seed", range(2))
    def test_turns_are_one_call_on_the_concatenation(self, name, seed):
        """Rows end at different times, and the next prompts have different lengths."""
        model = MODELS[name](seed)
        turns = [PROMPTS, [[3], [4, 5, 6, 7], []], [[9, 9, 4], [5], [10]]]
        contexts = [list(row) for row in PROMPTS]
        state = None
        stops = [TOKENS[4], TOKENS[7]]
        for k, prompts in enumerate(turns):
            if k:
                contexts = [old + new for old, new in zip(contexts, prompts, strict=True)]
            options = {"stop_tokens": stops}
            output = run(model, prompts, n=6 + k, options=options, last_state=state)
            whole = run(model, contexts, n=6 + k, options=options)
            assert rows_of(output) == rows_of(whole)
            contexts = [old + new for old, new in zip(contexts, rows_of(output), strict=True)]
            state = output.state
            assert state.tokens() == contexts

    def test_a_state_is_a_value(self):
        first = run(llama(), PROMPTS)
        again = [run(llama(), [[n], [5], [6]], last_state=first.state) for n in (3, 4, 3)]
        assert rows_of(again[0]) == rows_of(again[2])
        assert again[0].state.tokens() == again[2].state.tokens() != again[1].state.tokens()

    def test_random_numbers_go_on(self):
        method = RandomSampling(temperature=2)
        whole = run(llama(), PROMPTS, n=12, sampling=method, rng=5)
        first = run(llama(), PROMPTS, n=5, sampling=method, rng=5)
        rows = rows_of(first)
        going = [k for k, row in enumerate(rows) if len(row) == 5]
        assert going
        second = run(llama(), [[]] * 3, n=7, sampling=method, last_state=first.state)
        for k in going:
            assert rows[k] + rows_of(second)[k] == rows_of(whole)[k]

    def test_keeping_the_first_tokens(self):
        state = run(llama(), PROMPTS[0]).state
        tokens = state.tokens()[0]
        for n in (1, 4, len(tokens) - 1, len(tokens)):
            kept = state.keep(n)
            assert kept.tokens() == [tokens[:n]]
            assert rows_of(run(llama(), [5], last_state=kept)) == rows_of(run(llama(), tokens[:n] + [5]))
        with pytest.raises(ValueError, match="cannot be kept"):
            state.keep(len(tokens) + 1)


class TestCapacity:
    @pytest.mark.parametrize(
        ("options", "call", "message"),
        [
            ({"cache_length": 20}, {"n": 12}, r"longest context has 9 tokens: with 12 new ones.*cache_length=20"),
            ({"max_out_length": 10}, {"n": 12}, "max_out_length=10"),
            ({}, {"n": 0}, "max_new_tokens=0 must lie between 1"),
            ({"cache_length": 9}, {"n": None}, "at least 1 new ones"),
            ({}, {"n": 12, "guide": [None]}, "1 guides for 3 prompts"),
            ({}, {"n": 12, "rng": [1, 2]}, "2 seeds for 3 rows"),
            ({}, {"n": 12, "sharding": ["cpu", "cpu"]}, "3 prompts cannot be split equally over 2 devices"),
            ({}, {"n": 12, "images": [1, 2, 3]}, "images need the processor"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_refused_before_compute(self, options, call, message, stream, monkeypatch):
        model = llama()
        monkeypatch.setattr(model, "forward", _never(model.forward))
        with pytest.raises(ValueError, match=message):
            run(model, PROMPTS, options=options, stream=stream, **call)

    def test_positions_of_the_model(self):
        assert len(run(gpt2(), [3] * 50, n=14).tokens)
        with pytest.raises(ValueError, match="the model's 64 positions"):
            run(gpt2(), [3] * 51, n=14)

    def test_a_second_turn_counts_the_first(self, monkeypatch):
        options = {"cache_length": 24}
        state = run(llama(), PROMPTS, n=8, options=options).state
        used = max(map(len, state.tokens()))
        n = 24 - used - 1
        assert run(llama(), [[3]] * 3, n=n, options=options, last_state=state).lengths
        monkeypatch.setattr(llama(), "forward", _never(llama().forward))
        with pytest.raises(ValueError, match=f"has {used + 1} tokens: with {n + 1} new ones"):
            run(llama(), [[3]] * 3, n=n + 1, options=options, last_state=state)
        with pytest.raises(ValueError, match="last_state is of 3 rows"):
            run(llama(), [[3]] * 2, options=options, last_state=state)

    def test_without_a_number_the_cache_is_the_limit(self):
        bars = {"forbidden_tokens": [EOS]}
        assert run(llama(), PROMPTS, n=None, options={"cache_length": 20, **bars}).lengths == (11,) * 3
        assert run(llama(), PROMPTS, n=None, options={"max_out_length": 3, **bars}).lengths == (3,) * 3


def _never(forward):
    def refuse(*args, **kwargs):
        raise AssertionError("the model was run")

    refuse.__signature__ = __import__("inspect").signature(forward)
    return refuse


class TestStops:
    def test_a_stop_token_is_kept(self):
        free = rows_of(run(llama(), PROMPTS, options={"forbidden_tokens": [EOS]}))
        for row in free:
            stop = row[3]
            expected = [r[: r.index(stop) + 1] if stop in r else r for r in free]
            for given in (stop, VOCABULARY.token_bytes(stop).decode("utf-8", "ignore") or stop):
                options = {"forbidden_tokens": [EOS], "stop_tokens": [given]}
                assert rows_of(run(llama(), PROMPTS, options=options)) == expected

    def test_stop_strings(self, embedded):
        model, tokenizer = embedded
        prompts = ["A ticket: ", "Dear Sir, the name of", "x"]
        sampling = RandomSampling()
        free = Sampler(model, tokenizer=tokenizer, forbidden_tokens=["<eos>"])
        texts = free.sample(prompts, max_new_tokens=30, sampling=sampling, rng=1)
        stops = [texts[0][4:9], texts[1][7:10], texts[2][-3:]]
        assert any(len(tokenizer.encode(stop, add_special_tokens=False)) > 1 for stop in stops)
        one = Sampler(model, tokenizer=tokenizer, forbidden_tokens=["<eos>"], stop_tokens=stops)
        strings = [stop for stop in stops if len(tokenizer.encode(stop, add_special_tokens=False)) > 1]
        single = [stop for stop in stops if stop not in strings]
        got = one.sample(prompts, max_new_tokens=30, sampling=sampling, rng=1)
        for text, cut in zip(texts, got, strict=True):
            ends = [text.find(stop) + len(stop) for stop in strings if stop in text]
            assert text.startswith(cut)
            assert (len(cut) == min(ends)) if ends and not single else len(cut) <= min(ends, default=len(text))
        pieces = list(zip(*one.sample(prompts, max_new_tokens=30, sampling=sampling, rng=1, stream=True), strict=True))
        assert ["".join(row) for row in pieces] == got

    def test_forbidden_tokens(self, embedded):
        model, tokenizer = embedded
        with pytest.raises(ValueError, match="'never one token' is not one token"):
            Sampler(model, tokenizer=tokenizer, forbidden_tokens=["never one token"])
        free = rows_of(run(llama(), PROMPTS))
        banned = sorted({row[0] for row in free})
        got = rows_of(run(llama(), PROMPTS, options={"forbidden_tokens": banned}))
        assert got == reference(llama(), PROMPTS, 12, suppress_tokens=banned)
        with pytest.raises(GuideError, match="every token is forbidden"):
            run(llama(), PROMPTS, options={"forbidden_tokens": range(32)})


class TestRows:
    METHODS = (RandomSampling(temperature=2), TopkSampling(k=5, temperature=2), TopPSampling(p=0.9, temperature=2))

    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_a_row_does_not_depend_on_its_neighbours(self, name, method):
        model, seeds = MODELS[name](), [11, 12, 13]
        together = rows_of(run(model, PROMPTS, sampling=method, rng=seeds))
        for order in ([0], [1], [2], [2, 0], [1, 1, 0, 2]):
            some = run(model, [PROMPTS[k] for k in order], sampling=method, rng=[seeds[k] for k in order])
            assert rows_of(some) == [together[k] for k in order]

    def test_one_seed_gives_each_row_its_own(self):
        method = RandomSampling(temperature=2)
        rows = rows_of(run(llama(), [PROMPTS[0]] * 4, sampling=method, rng=3))
        assert len(set(map(tuple, rows))) > 1
        assert rows_of(run(llama(), PROMPTS[0], sampling=method, rng=3)) == rows[:1]
        generator = torch.Generator().manual_seed(2)
        drawn = [rows_of(run(llama(), PROMPTS[0], sampling=method, rng=generator)) for _ in range(4)]
        assert len(set(map(str, drawn))) > 1

    def test_temperature_zero_is_greedy(self):
        for method in (RandomSampling(temperature=0), TopPSampling(temperature=0, p=0.5), TopkSampling(k=1)):
            assert rows_of(run(llama(), PROMPTS, sampling=method)) == reference(llama(), PROMPTS, 12)


class TestStream:
    @pytest.mark.parametrize("method", [RandomSampling(temperature=2), TopkSampling(k=1)], ids=repr)
    @pytest.mark.parametrize("guided", [False, True])
    def test_pieces_are_the_text(self, method, guided):
        guide = oc.compile_regex("(ab|c|é|ü)+d[01]{3}", VOCABULARY) if guided else None
        call = {"max_new_tokens": 14, "sampling": method, "rng": 4, "guide": guide}
        texts = sampler(llama()).sample(PROMPTS, **call)
        pieces = list(sampler(llama()).sample(PROMPTS, stream=True, **call))
        assert ["".join(row) for row in zip(*pieces, strict=True)] == texts
        assert "".join(sampler(llama()).sample(PROMPTS[0], stream=True, **call)) == texts[0]
        outputs = list(sampler(llama()).sample(PROMPTS, stream=True, return_state=True, **call))
        whole = sampler(llama()).sample(PROMPTS, return_state=True, **call)
        streamed = [[], [], []]
        logprobs = [[], [], []]
        for output in outputs:
            for k, row in enumerate(rows_of(output)):
                streamed[k] += row
                logprobs[k] += output.logprobs[k, : len(row)].tolist()
        assert streamed == rows_of(whole)
        for k, row in enumerate(logprobs):
            np.testing.assert_allclose(row, whole.logprobs[k, : len(row)], atol=1e-5)
        assert [output.state is not None for output in outputs] == [False] * (len(outputs) - 1) + [True]
        assert outputs[-1].state.tokens() == whole.state.tokens()
        after = [rows_of(run(llama(), [[3]] * 3, last_state=x.state, rng=1)) for x in (outputs[-1], whole)]
        assert after[0] == after[1]

    def test_rows_that_have_ended_are_silent(self):
        model = llama(2)
        options = {"stop_tokens": [rows_of(run(model, PROMPTS, n=20))[1][4]]}
        rows = rows_of(run(model, PROMPTS, n=20, options=options))
        lengths = sorted(map(len, rows))
        assert lengths[0] < lengths[-1]
        first = min(range(3), key=lambda k: len(rows[k]))
        pieces = list(sampler(model, **options).sample(PROMPTS, max_new_tokens=20, stream=True))
        assert not any(piece[first] for piece in pieces[lengths[0] :])


class TestGuides:
    GUIDE = oc.compile_regex("(ab|c){1,4}d?[01]{2}", VOCABULARY)

    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("close", [False, True])
    def test_texts_match(self, name, close):
        guides = [self.GUIDE, oc.compile_choice(["abc", "x1", "é"], VOCABULARY), oc.compile_regex("x+0", VOCABULARY)]
        patterns = ["(ab|c){1,4}d?[01]{2}", "abc|x1|é", "x+0"]
        for seed in range(4):
            texts = sampler(MODELS[name](seed)).sample(
                PROMPTS, max_new_tokens=9, guide=guides, close=close, sampling=RandomSampling(temperature=2), rng=seed
            )
            for text, pattern in zip(texts, patterns, strict=True):
                assert re.fullmatch(pattern, text) or (not close and len(text) >= 9), (text, pattern)

    def test_a_guide_for_other_tokens_is_refused(self):
        tokens = {b"q" if token == b"c" else token: list(ids) for token, ids in VOCABULARY.items()}
        other = oc.Vocabulary(EOS, tokens, special_tokens=VOCABULARY.special_tokens)
        with pytest.raises(ValueError, match="token id 5 is b'q' to it, and b'c' to the sampler"):
            run(llama(), PROMPTS, guide=oc.compile_regex("[abq]+", other))
        ends = vocabulary_from(VOCABULARY, eos_token_ids=[EOS, 30], size=32)
        output = run(llama(), PROMPTS, guide=oc.compile_choice(["ab", "x"], ends))
        assert all(text in ("ab", "x") for text in output.text)
        assert {row[-1] for row in rows_of(output)} <= {EOS, 30}

    def test_too_little_room_to_close(self):
        with pytest.raises(GuideError, match="max_new_tokens is too small"):
            run(llama(), PROMPTS, n=1, guide=self.GUIDE, close=True)

    def test_a_guide_that_forbidden_tokens_contradict(self):
        guide = oc.compile_choice(["aa", "ab"], VOCABULARY)
        with pytest.raises(GuideError, match="row 0: no token is left"):
            run(llama(), PROMPTS, guide=guide, options={"forbidden_tokens": [3, 9, 10]})

    @pytest.mark.parametrize("marker", ["c", 5, "ca"])
    def test_a_guide_that_begins_later(self, marker):
        """Free until the marker, then the constraint, and an EOS before it ends a row unconstrained."""
        text = marker if isinstance(marker, str) else "c"
        n_begun = 0
        for seed in range(6):
            output = run(
                llama(),
                PROMPTS,
                n=24,
                guide=self.GUIDE,
                start_after=marker,
                sampling=RandomSampling(),
                rng=seed,
                options={"forbidden_tokens": [PAD, BOS, *range(24, 32)]},  # what is no text cuts a marker in two
            )
            for tokens, whole in zip(rows_of(output), output.text, strict=True):
                free, begun, rest = whole.partition(text)
                if isinstance(marker, int):
                    begun = 5 in tokens
                    rest = "".join(TOKENS[t - 3] for t in tokens[tokens.index(5) + 1 :] if t >= 3) if begun else ""
                if begun and tokens[-1] == EOS:
                    assert re.fullmatch("(ab|c){1,4}d?[01]{2}", rest), (free, rest)
                    n_begun += 1
        assert n_begun
        with pytest.raises(ValueError, match="start_after= needs a guide"):
            run(llama(), PROMPTS, start_after=marker)

    def test_users_processors_come_after_the_masks(self):
        seen = []

        def prefer_c(ids, logits):
            seen.append((ids.shape, torch.isneginf(logits).any(1).tolist()))
            return logits + 100 * torch.nn.functional.one_hot(torch.tensor(5), logits.shape[1])

        def lift(ids, logits):
            return torch.where(torch.isneginf(logits), 1000.0, logits)

        texts = sampler(llama()).sample(PROMPTS, guide=self.GUIDE, max_new_tokens=9, logits_processors=[prefer_c, lift])
        assert all(re.fullmatch("c{4}d?[01]{2}", text) for text in texts)
        assert seen[0] == ((3, 9), [True] * 3)
        assert [shape[1] for shape, _ in seen] == list(range(9, 9 + len(seen)))

    def test_the_distribution_is_exact(self):
        """Mask first, then temperature, then truncation: all texts of a small language, and their frequencies."""
        language = ["abc", "c", "cab", "d0"]
        guide = oc.compile_choice(language, VOCABULARY)
        prompt, n = [BOS, 5, 9], 3000
        for method in (RandomSampling(temperature=1.5), TopkSampling(k=2, temperature=2.0)):
            exact = {}
            for tokens in _spellings(language):
                p = 1.0
                for k, token in enumerate([*tokens, EOS]):
                    state = guide.accept_tokens(guide.initial_state, tokens[:k])[1]
                    mask = torch.full((32,), -torch.inf, dtype=torch.float64)
                    mask[torch.from_numpy(guide.allowed_tokens(state)).long()] = 0
                    p *= float(method.probs((logprobs_after(llama(), prompt + tokens[:k]) + mask)[None])[0, token])
                exact[tuple(tokens)] = p
            assert sum(exact.values()) == pytest.approx(1)
            for ahead in ("tokens", None):
                output = run(
                    llama(),
                    [prompt] * n,
                    guide=guide,
                    sampling=method,
                    rng=17,
                    options={"fast_forward": ahead},
                )
                assert chi_square(exact, [tuple(row[:-1]) for row in rows_of(output)]) < 0


def _spellings(language):
    found = []
    for text in language:
        for n in range(1, len(text) + 1):
            for cuts in itertools.combinations(range(1, len(text)), n - 1):
                parts = [text[i:j] for i, j in itertools.pairwise([0, *cuts, len(text)])]
                if all(part in TOKENS for part in parts):
                    found.append([3 + TOKENS.index(part) for part in parts])
    return found


class TestPrompts:
    def test_kinds(self, embedded):
        model, tokenizer = embedded
        one = Sampler(model, tokenizer=tokenizer)
        text = one.sample("Hello", max_new_tokens=5)
        ids = tokenizer.encode("Hello")
        assert isinstance(text, str)
        assert one.sample(np.array(["Hello", "Hello"]), max_new_tokens=5) == [text, text]
        for given in (ids, torch.tensor(ids), np.array(ids)):
            assert one.sample(given, max_new_tokens=5) == text
        for many in ([ids], torch.tensor([ids]), [torch.tensor(ids)]):
            assert one.sample(many, max_new_tokens=5) == [text]

    def test_conversations(self, embedded):
        model, tokenizer = embedded
        one = Sampler(model, tokenizer=tokenizer)
        talk = [{"role": "user", "content": "Hello"}]
        output = one.sample(talk, max_new_tokens=5, return_state=True)
        rendered = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(rendered, add_special_tokens=False)
        assert ids.count(tokenizer.bos_token_id) == 1
        assert output.state.tokens()[0][: len(ids)] == ids
        assert one.sample([talk, talk], max_new_tokens=5) == [output.text] * 2
        second = one.sample(talk, max_new_tokens=5, return_state=True, last_state=output.state)
        assert second.state.tokens()[0].count(tokenizer.bos_token_id) == 1

    @pytest.mark.parametrize(
        ("prompt", "error", "message"),
        [
            (3, TypeError, "not int"),
            ([], ValueError, "no prompt"),
            ([[]], ValueError, "prompt 0 has no tokens"),
            ([3, [4]], TypeError, "mixed"),
            ([["a"]], TypeError, "messages, or token ids"),
            (b"abc", TypeError, "not bytes"),
            ("abc", TypeError, "cannot encode"),
        ],
    )
    def test_refused(self, prompt, error, message):
        with pytest.raises(error, match=message):
            sampler(llama()).sample(prompt)


def test_models_that_cannot_be_sampled_from():
    from transformers import BartConfig, BartForConditionalGeneration

    tiny = BartConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    )  # fmt: skip
    with pytest.raises(UnsupportedFeatureError, match="build_generate"):
        sampler(BartForConditionalGeneration(tiny).eval())


def test_positions_in_several_dimensions_are_refused():
    model = copy.copy(llama())
    model.get_rope_index = lambda: None
    with pytest.raises(UnsupportedFeatureError, match="several dimensions"):
        sampler(model)


def test_fields_are_checked():
    for options in ({"cache_length": 0}, {"max_out_length": -1}, {"n_draft": 0}, {"fast_forward": "both"}):
        with pytest.raises(ValueError, match="must be"):
            sampler(llama(), **options)
    with pytest.raises(ValueError, match="needs a tokenizer"):
        Sampler(llama())
    with pytest.raises(TypeError, match="cannot encode"):
        sampler(llama(), fast_forward="text")


def test_a_window_is_counted_in_the_rows_own_tokens():
    """Windows do not see holes: a batch whose rows end at different times goes on as each row alone."""
    model = mistral(1)
    free = rows_of(run(model, PROMPTS, n=9))
    stop = next(token for token in free[0][:5] if token not in free[2])
    first = run(model, PROMPTS, n=9, options={"stop_tokens": [stop]})
    assert len(set(first.lengths)) > 1
    together = rows_of(run(model, [[3], [4, 4, 4], [5, 5]], last_state=first.state))
    for k, prompt in enumerate([[3], [4, 4, 4], [5, 5]]):
        assert rows_of(run(model, first.state.tokens()[k] + prompt)) == [together[k]]


class TestOtherCaches:
    """What can only be appended to is appended to; the rest is refused before any computation."""

    @pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1], [PROMPTS[0]] * 2])
    def test_one_turn(self, prompts):
        assert rows_of(run(lfm2(), prompts, n=16)) == reference(lfm2(), prompts, 16)
        guide = oc.compile_regex("x x x x|é é é[ab]", VOCABULARY)
        texts = sampler(lfm2()).sample(prompts, guide=guide, max_new_tokens=16)
        assert all(re.fullmatch("x x x x|é é é[ab]", text) for text in texts)

    def test_turns_of_one_row(self):
        state, context = None, []
        for prompt in ([BOS, 3, 4], [5], [6, 7, 8]):
            output = run(lfm2(), prompt, n=6, last_state=state)
            context += prompt
            assert rows_of(output) == rows_of(run(lfm2(), context, n=6))
            context += rows_of(output)[0]
            state = output.state

    def test_refused(self, monkeypatch):
        state = run(lfm2(), PROMPTS, n=4).state
        plain = run(lfm2(), [[BOS, 3]] * 2, n=4, options={"forbidden_tokens": [EOS]}).state
        assert run(lfm2(), [[3], [4]], n=4, last_state=plain).lengths
        monkeypatch.setattr(lfm2(), "forward", _never(lfm2().forward))
        for given, prompts in ((state, [[3]] * 3), (plain, [[3], [4, 5]])):
            with pytest.raises(UnsupportedFeatureError, match="can only be appended to"):
                run(lfm2(), prompts, n=4, last_state=given)
        with pytest.raises(UnsupportedFeatureError, match="cannot take drafts back"):
            run(lfm2(), [3], options={"draft_model": llama()})
