"""`CachedCausalLM`: batches without timers, rows remembered within a bound, exceptions to every waiter."""

from __future__ import annotations

import asyncio
import copy
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlines_core import Vocabulary
from outlines_core.errors import LimitExceededError
from processors.lm import CachedCausalLM, MockBackend
from processors.lm.backend import log_softmax
from processors.lm.batching import AutoBatcher
from tests.lm_toys import toy_lm

TOKENS = {"a": 0, "b": 1, "ab": 2, " c": 3, "</": 5}


class Recorder(MockBackend):
    """Notes every batch; raises what it is told to."""

    def __init__(self, n_logits=7):
        super().__init__(n_logits)
        self.batches: list[list[tuple[int, ...]]] = []
        self.error: BaseException | None = None

    def logprobs(self, prefixes, lora=None):
        self.batches.append(list(prefixes))
        if self.error is not None:
            raise self.error
        return super().logprobs(prefixes, lora)


@pytest.fixture
def recorded():
    backend = Recorder()
    return CachedCausalLM(backend, None, Vocabulary(4, {t: [i] for t, i in TOKENS.items()})), backend


@given(st.lists(st.lists(st.integers(0, 6), max_size=4), max_size=12))
def test_batched_is_single(prefixes):
    lm, twin = (CachedCausalLM(MockBackend(7), None, Vocabulary(4, {"a": [0]})) for _ in range(2))
    together = asyncio.run(lm.batch_next_token_logprobs(prefixes))
    assert together.shape == (len(prefixes), 7)
    for row, prefix in zip(together, prefixes, strict=True):
        np.testing.assert_array_equal(row, twin.next_token_logprobs_unbatched(prefix))
    np.testing.assert_array_equal(together, twin.batch_next_token_logprobs_unbatched(prefixes))


def test_one_batch_for_all_coroutines_however_deep(recorded):
    lm, backend = recorded

    async def asks(k, depth):
        if depth:
            await asyncio.gather(asks(k, depth - 1))
        return await lm.next_token_logprobs([k] * (depth + 1))

    async def main():
        await asyncio.gather(*(asks(k, 3) for k in range(5)), asks(5, 3))

    asyncio.run(main())
    assert [len(batch) for batch in backend.batches] == [6, 6, 6, 6]


def test_coroutines_that_come_late_join(recorded):
    lm, backend = recorded

    async def late(k):
        for _ in range(k):
            await asyncio.sleep(0)
        await lm.next_token_logprobs([k])

    async def main():
        await asyncio.gather(*(late(k) for k in range(6)))

    asyncio.run(main())
    assert [len(batch) for batch in backend.batches] == [6]


def test_no_timer(recorded):
    lm, backend = recorded
    lm.timeout = 1e6
    lm.batch_size = 1000
    asyncio.run(asyncio.wait_for(lm.next_token_logprobs([1]), timeout=30))
    assert len(backend.batches) == 1


def test_timeout_ends_the_waiting_for_a_trickle():
    batches = []
    batcher = AutoBatcher(lambda keys: batches.append(keys) or keys, batch_size=10**9, timeout=0.0)

    async def main():
        waiting = [asyncio.ensure_future(batcher.ask(0))]
        for k in range(1, 30):
            await asyncio.sleep(0)
            waiting.append(asyncio.ensure_future(batcher.ask(k)))
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == list(range(30))
    assert len(batches) > 5


def test_full_batches_run_at_once(recorded):
    lm, backend = recorded
    lm.batch_size = 2

    async def main():
        await asyncio.gather(*(lm.next_token_logprobs([k]) for k in range(5)))

    asyncio.run(main())
    assert [len(batch) for batch in backend.batches] == [2, 2, 1]
    with pytest.raises(ValueError, match="at least 1"):
        lm.batch_size = 0


def test_duplicates_are_asked_once(recorded):
    lm, backend = recorded
    rows = asyncio.run(lm.batch_next_token_logprobs([[1, 2], [3], [1, 2], [1, 2]]))
    assert backend.batches == [[(1, 2), (3,)]]
    np.testing.assert_array_equal(rows[0], rows[2])
    assert np.any(rows[0] != rows[1])


def test_an_exception_reaches_every_waiter_and_nothing_is_stuck(recorded):
    lm, backend = recorded
    backend.error = RuntimeError("out of memory")

    async def main():
        return await asyncio.gather(*(lm.next_token_logprobs([k % 3]) for k in range(6)), return_exceptions=True)

    assert [str(answer) for answer in asyncio.run(main())] == ["out of memory"] * 6
    backend.error = None
    np.testing.assert_array_equal(asyncio.run(lm.next_token_logprobs([1])), MockBackend(7).logprobs([(1,)])[0])


def test_an_exception_that_no_future_takes(recorded):
    lm, backend = recorded
    backend.error = StopIteration("no more")

    async def main():
        return await asyncio.gather(*(lm.next_token_logprobs([k]) for k in range(3)), return_exceptions=True)

    for error in asyncio.run(main()):
        assert isinstance(error, RuntimeError)
        assert error.__cause__ is backend.error


def test_wrong_numbers_of_answers_are_an_error():
    batcher = AutoBatcher(lambda keys: [], batch_size=4, timeout=1)
    with pytest.raises(RuntimeError, match="1 queries got 0 answers"):
        asyncio.run(batcher.ask(1))


def test_an_interrupt_passes_through(recorded):
    lm, backend = recorded
    backend.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(lm.next_token_logprobs([1]))


def test_cancelled_waiters_leave_the_batch(recorded):
    lm, backend = recorded

    async def main():
        tasks = [asyncio.ensure_future(lm.next_token_logprobs([k])) for k in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(main())
    assert isinstance(answers[1], asyncio.CancelledError)
    assert backend.batches == [[(0,), (2,)]]


def test_a_loop_that_died_with_queries_waiting(recorded):
    lm, backend = recorded

    async def dies():
        waiting = asyncio.ensure_future(lm.next_token_logprobs([1]))
        await asyncio.sleep(0)
        waiting.cancel()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(dies())
    asyncio.run(lm.next_token_logprobs([2]))
    assert backend.batches == [[(2,)]]


def test_reset_cancels_whoever_waits(recorded):
    lm, backend = recorded

    async def main():
        waiting = asyncio.ensure_future(lm.next_token_logprobs([1]))
        await asyncio.sleep(0)
        assert lm._batcher.n_waiting == 1
        lm.reset_async_queries()
        assert lm._batcher.n_waiting == 0
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert backend.batches == []


def test_threads_with_loops_of_their_own():
    lm = toy_lm(TOKENS, 4)
    expected = [lm.next_token_logprobs_unbatched([k, 1]) for k in range(5)]
    lm.clear_cache()
    failures = []

    def work():
        rows = asyncio.run(lm.batch_next_token_logprobs([[k, 1] for k in range(5)]))
        if not np.array_equal(rows, np.stack(expected)):
            failures.append(rows)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# -- memory ------------------------------------------------------------------------------------------------------------


def test_rows_are_remembered_within_a_bound(recorded):
    lm, backend = recorded
    lm.row_bytes = 3 * 7 * 4
    for k in (0, 1, 2, 0, 3, 0, 1):  # 3 drives out 1, and 1 then 2
        lm.next_token_logprobs_unbatched([k])
        assert lm.nbytes <= lm.row_bytes
    assert [batch[0][0] for batch in backend.batches] == [0, 1, 2, 3, 1]


def test_clear_cache(recorded):
    lm, backend = recorded
    lm.next_token_logprobs_unbatched([1])
    lm.clear_cache()
    assert lm.nbytes == 0
    lm.next_token_logprobs_unbatched([1])
    assert len(backend.batches) == 2


def test_rows_are_read_only(recorded):
    row = recorded[0].next_token_logprobs_unbatched([1])
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 0


def test_copies_are_the_object_itself(recorded):
    lm, _ = recorded
    assert copy.deepcopy({"lm": lm})["lm"] is lm
    assert copy.copy(lm) is lm


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_ids_are_checked(recorded):
    lm, backend = recorded
    backend.takes_empty = False
    for ids, message in (([], "no token ids"), ([7], r"0 \.\. 6"), ([-1, 2], r"-1 \.\. 2")):
        with pytest.raises(ValueError, match=message):
            lm.next_token_logprobs_unbatched(ids)
        with pytest.raises(ValueError, match=message):
            asyncio.run(lm.next_token_logprobs(ids))
    backend.max_length = 2
    with pytest.raises(LimitExceededError):
        lm.next_token_logprobs_unbatched([1, 2, 3])
    assert backend.batches == []


def test_arrays_of_ids(recorded):
    lm, backend = recorded
    first = lm.next_token_logprobs_unbatched(np.array([1, 2], dtype=np.int32))
    assert lm.next_token_logprobs_unbatched((1, 2)) is first
    assert backend.batches == [[(1, 2)]]


def test_adapters_that_are_not_there(recorded):
    lm, _ = recorded
    with pytest.raises(ValueError, match="no LoRA adapter"):
        lm.set_lora("x")
    with pytest.raises(NotImplementedError):
        lm.add_new_lora("path", "x")
    with pytest.raises(NotImplementedError):
        lm.next_token_logprobs_unbatched([1], lora="x")


def test_log_softmax_needs_a_finite_logit():
    with pytest.raises(ValueError, match="finite"):
        log_softmax(np.array([-np.inf, -np.inf]))
    with pytest.raises(ValueError, match="finite"):
        log_softmax(np.array([0.0, np.nan]))


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_vocabularies():
    lm = CachedCausalLM(
        MockBackend(9), None, Vocabulary(4, {b"a": [0], b"\xc3": [1], "é".encode(): [2]}, special_tokens={"<s>": 5})
    )
    assert lm.byte_vocab == [b"a", b"\xc3", "é".encode(), b"", b"", b"<s>"]
    assert lm.str_vocab == ["a", "\ufffd", "é", "", "", "<s>"]
    assert (lm.n_logits, lm.eos_token_ids) == (9, (4,))
    assert lm.decode([1, 0, 2]) == "\ufffdaé"


# -- with transformers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    pytest.importorskip("torch")
    from processors import load_embedded

    return load_embedded()


def test_from_pretrained(embedded):
    import torch

    from processors.embedded import EMBEDDED_PATH

    model, tokenizer = embedded
    ids = tokenizer.encode("The quick brown fox")
    with torch.inference_mode():
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1).numpy()
    for lm in (
        CachedCausalLM.from_pretrained(model, tokenizer),
        CachedCausalLM.from_pretrained(model, backend="hf", kv_bytes=0),
        CachedCausalLM.from_pretrained(str(EMBEDDED_PATH), dtype=torch.float32),
    ):
        np.testing.assert_allclose(lm.next_token_logprobs_unbatched(ids), expected, atol=1e-4)
        np.testing.assert_allclose(asyncio.run(lm.next_token_logprobs(ids)), expected, atol=1e-4)
        assert lm.encode("The quick brown fox") == ids
    assert lm.byte_vocab[ids[-1]] == b" fox"[-len(lm.byte_vocab[ids[-1]]) :]


def test_from_pretrained_mock_and_refusals(embedded):
    model, tokenizer = embedded
    lm = CachedCausalLM.from_pretrained("unused", tokenizer, backend="mock")
    assert lm.n_logits == lm.vocabulary.size == len(tokenizer)
    with pytest.raises(ValueError, match="'vllm'"):
        CachedCausalLM.from_pretrained(model, tokenizer, backend="vllm")
    with pytest.raises(ValueError, match="dtype"):
        CachedCausalLM.from_pretrained(model, tokenizer, dtype="auto")


def test_a_prompt_cached_by_hand(embedded):
    model, tokenizer = embedded
    lm = CachedCausalLM.from_pretrained(model, tokenizer)
    prompt = tokenizer.encode("Once upon a time there was a small model")
    before = [lm.next_token_logprobs_unbatched([*prompt, k]) for k in (5, 6)]
    lm.clear_cache()
    lm.cache_kv(prompt)
    fed = lm.backend.n_tokens
    after = asyncio.run(lm.batch_next_token_logprobs([[*prompt, k] for k in (5, 6)]))
    assert lm.backend.n_tokens == fed + 2
    np.testing.assert_allclose(after, before, atol=1e-4)
    lm.clear_kv_cache()
    assert lm.backend.n_cached_tokens == 0
