"""Does everything that `model.generate()` writes under a regex match it?  Sixty regexes, seven ways to decode.

The regexes are a seeded draw of forty from a file of cases (one JSON object a line; field `grammar` is the pattern)
and the twenty of `OWN`: look-arounds, Unicode, case folding, long repeats, atomic groups, word boundaries, anchors.
The model is a tiny Llama with random weights over the whole vocabulary of a real tokenizer, so that its next-token
distribution is close to uniform: it has no idea of the pattern, and none that a text should end.

Each pattern is decoded in every mode of `MODES`, with two budgets, both of 4 x the shortest match + 4 tokens:

    plain     `max_new_tokens` is given to `generate` alone: texts may be cut off
    closing   it is given to the processor, too: every text must be a complete match

What is checked does not trust the engine. A finished output (EOS was generated) must satisfy `re.fullmatch`. An
unfinished one must be a viable prefix, which is shown twice: by a *completion*, tokens of the vocabulary after which
`re.fullmatch` accepts the whole (this decides), and by partial matching of PyPI's `regex`, as a second opinion where
the pattern can be put so that both modules mean the same by it. (`regex` calls some hopeless prefixes of patterns with
look-arounds viable, so that it can only object.) The text is the concatenation of the tokens' bytes, and must be what
the tokenizer decodes.

`chance` in the tables is a walk that takes each allowed token with equal probability, EOS included: what a model
without an opinion does, whatever the decoding loop.

usage: python benchmarks/generate_regex.py --tokenizer HF_DIR --cases regex.jsonl [--modes greedy ...] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import re
import signal
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import regex
import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

import outlines_core as oc
from processors.logits import RegexLogitsProcessor

OWN = (
    r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z\d]{8,12}",
    r"(?!.*(?:foo|bar))[a-z]{3,12}",
    r"/\*(?:(?!\*/)[\s\S]){0,30}\*/",
    r"[a-z]{3,9}(?<!ing)(?<!ed)(?<=[aeiou][^aeiou])\d{2}",
    r"(?<!x)\w{2,8}(?=-\d)-(?!00)\d\d",
    r"(?i)straße|ΣΊΣΥΦΟΣ|ǆungla|ﬁn",
    r"(?i:kelvin)=[+-]?\d{1,4}(?i:k)",
    "[\U0001f600-\U0001f64f]{1,4}(?:\U0001f44d\U0001f3fd|\U0001f468‍\U0001f469‍\U0001f467|❤️)?",
    r"[^\W\d_]{2,8}[̀-ͯ]?",
    r"(?a:\d{2}):\d{2}[^\x00-\x7f]\S",
    r"(?:[0-9a-f]{2}:){31}[0-9a-f]{2}",
    r"(?:ab|cd){40,80}e?",
    r".{20,40}",
    r"(?:[a-z]{1,10} ){5,100}end\.",
    r"[a-z]{1,12}+\d(?>foo|foobar)baz?",
    r"x*+y|(?>a+|ab)b?c",
    r"\b\w{1,8}\b(?:[ ,]+\b\w{1,8}\b){2,4}\.",
    r"(?m)^\w{1,6}$(?:\n^\w{1,6}$){2}",
    r"(?m)(?:^#{1,3} [A-Z][a-z]{2,8}$\n?){1,3}\Z",
    r"(?sx) BEGIN\b .{0,20}? \bEND $  # verbose, lazy, and $ before a last line end",
)
"""Twenty patterns, one for each thing that engines like to get wrong."""

PROMPTS = (
    "Answer:",
    "Write something that fits.",
    "One, two, three, four, five, six, seven: count on!",
    "Ω ≠ ∅ und ß ist kein β;",
    "A longer prompt, so that the shorter ones must be padded on the left by quite a few places, of all things.",
    "x",
    "def f(x):\n    return x\n",
    '{"key": [1, 2, 3], "other": null}',
)
BUDGETS = ("plain", "closing")
TIMEOUT_S = 20.0


# -- patterns ----------------------------------------------------------------------------------------------------------


@dataclass
class Subject:
    """A pattern to be decoded."""

    pattern: str
    automaton: Any
    shortest: int
    own: bool

    @property
    def budget(self) -> int:
        return 4 * self.shortest + 4

    @cached_property
    def may_outlast(self) -> bool:
        """Has the language a text with as many characters as the budget has tokens, so that it need not end in time?"""
        long = oc.Language.parse(f"(?s).{{{self.budget},}}")
        return not (oc.Language.parse(self.pattern) & long).is_empty()


def subjects_of(patterns: Sequence[str], vocabulary: oc.Vocabulary, refused: Counter[str], own: bool) -> list[Subject]:
    """The patterns that both `re` and this package take; the others are counted by who refused them."""
    found = []
    for pattern in patterns:
        try:
            compiled(pattern)
        except re.error:
            refused["re: syntax"] += 1
            continue
        try:
            automaton = oc.compile_regex(pattern, vocabulary)
        except oc.ConstraintError as error:
            refused[f"outlines_core: {type(error).__name__}"] += 1
            continue
        found.append(Subject(pattern, automaton, automaton.min_tokens_to_accept(automaton.initial_state), own))
    return found


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "possible set difference": what it means today is meant
        return re.compile(pattern)


def draw(cases: pathlib.Path, vocabulary: oc.Vocabulary, n: int, seed: int, refused: Counter[str]) -> list[Subject]:
    lines = cases.read_text(encoding="utf-8").splitlines()
    patterns = list(dict.fromkeys(json.loads(line)["grammar"] for line in lines if line.strip()))
    eligible = subjects_of(patterns, vocabulary, refused, own=False)
    return random.Random(seed).sample(eligible, min(n, len(eligible)))


# -- oracles -----------------------------------------------------------------------------------------------------------


class UndecidedError(Exception):
    """An oracle did not answer in time."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """`re` looks at signals now and then while it backtracks."""

    def on_alarm(*_: Any) -> None:
        raise UndecidedError

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def matches(pattern: str, text: bytes) -> bool:
    try:
        whole = text.decode()
    except UnicodeDecodeError:
        return False
    with time_limit(TIMEOUT_S):
        return compiled(pattern).fullmatch(whole) is not None


@cache
def _class_of(letter: str) -> str:
    r"""What `re` means by ``\w``, ``\d`` or ``\s``, as the inside of a character class."""
    member = re.compile("\\" + letter).match
    inside = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and member(chr(c))]
    ranges: list[list[int]] = []
    for c in inside:
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)


@cache
def _complement_of(letter: str) -> str:
    member = re.compile("\\" + letter.upper()).match
    edges = [0, *(c for c in range(1, 0x110000) if bool(member(chr(c))) != bool(member(chr(c - 1)))), 0x110000]
    return "".join(f"\\U{low:08x}-\\U{high - 1:08x}" for low, high in pairwise(edges) if member(chr(low)))


@cache
def twin(pattern: str) -> Any:
    r"""The pattern for the `regex` module, with the meaning that `re` gives it; None where that cannot be said.

    The modules differ in ``\w \d \s \b`` (Unicode properties against `str` methods) and in case folding.
    """
    if re.search(r"\(\?[aiLmsux]*[aiL]", pattern):
        return None
    out, at, in_class = [], 0, False
    word = f"[{_class_of('w')}]"
    while at < len(pattern):
        c = pattern[at]
        if c == "\\":
            e = pattern[at + 1]
            if e in "wds":
                out.append(_class_of(e) if in_class else f"[{_class_of(e)}]")
            elif e in "WDS":
                out.append(_complement_of(e.lower()) if in_class else f"[^{_class_of(e.lower())}]")
            elif e == "b" and not in_class:
                out.append(f"(?:(?<={word})(?!{word})|(?<!{word})(?={word}))")
            elif e == "B" and not in_class:
                out.append(f"(?:(?<={word})(?={word})|(?<!{word})(?!{word}))")
            else:
                out.append(c + e)
            at += 2
            continue
        if in_class and c == "]":
            in_class = False
        elif not in_class and c == "[":
            in_class = True
            opening = 2 if pattern[at + 1] == "^" else 1
            if pattern[at + opening] == "]":  # a first ] is a member
                opening += 1
            out.append(pattern[at : at + opening])
            at += opening
            continue
        out.append(c)
        at += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return regex.compile("".join(out), regex.VERSION0)
    except regex.error:
        return None


def second_opinion(pattern: str, text: bytes) -> bool | None:
    """Is this the beginning of a match, as far as the `regex` module can tell?  None: it cannot."""
    other = twin(pattern)
    if other is None:
        return None
    try:
        return other.fullmatch(whole_characters(text), partial=True, timeout=TIMEOUT_S) is not None
    except TimeoutError:
        return None


def whole_characters(text: bytes) -> str:
    """The text up to a last character that is cut off; what else is no UTF-8 raises."""
    for cut in range(4):
        try:
            return text[: len(text) - cut].decode()
        except UnicodeDecodeError as error:
            if error.end < len(text) - cut or error.reason != "unexpected end of data":
                raise
    raise AssertionError("a character has at most four bytes")


def completion(automaton: Any, state: int) -> bytes | None:
    """Some tokens from a state to the end, as bytes; whether they help is for `re.fullmatch` to say."""
    text = b""
    row = oc.allocate_bitmask(1, automaton.vocabulary)[0]
    left = fewest = automaton.min_tokens_to_accept(state)
    while fewest:
        if left > 10 * fewest + 100:
            return None
        automaton.fill_closing_mask(state, left, row)
        ids = bits(row).tolist()
        left += 1  # closing masks may count bytes for tokens, so that more are asked for than the fewest
        if ids:
            targets = {automaton.next_state(state, token): token for token in ids}
            state = min(targets, key=automaton.min_tokens_to_accept)
            if automaton.min_tokens_to_accept(state) >= fewest:
                continue
            text += automaton.vocabulary.token_bytes(targets[state])
            left = fewest = automaton.min_tokens_to_accept(state)
    return text


def bits(row: Any) -> Any:
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))


# -- one output --------------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What became of one output."""

    text: bytes
    n_tokens: int
    finished: bool
    matches: bool
    viable: bool
    wrong: str = ""
    second: bool | None = None
    n_ends: int = 0  # steps at which EOS was allowed
    n_allowed: int = 0  # median of the number of tokens allowed there
    to_go: int = 0  # fewest tokens still needed


def judge(
    subject: Subject, ids: Sequence[int], *, closing: bool, decoded: Callable[[list[int]], str] | None
) -> Verdict:
    """Check one generated row (EOS and padding included)."""
    automaton, pattern = subject.automaton, subject.pattern
    vocabulary = automaton.vocabulary
    eos = set(vocabulary.eos_token_ids)
    end = next((k for k, token in enumerate(ids) if token in eos), len(ids))
    finished, own = end < len(ids), [int(i) for i in ids[:end]]
    text = b"".join(vocabulary.token_bytes(i) for i in own)
    verdict = Verdict(text, len(own), finished, False, False)
    try:
        verdict.matches = matches(pattern, text)
        if decoded is not None and decoded(own) != text.decode("utf-8", "replace"):
            verdict.wrong = "the tokenizer decodes another text"
        elif finished or closing:
            verdict.wrong = "" if verdict.matches else f"{'finished' if finished else 'closed'}, but no match"
        else:
            look_at_prefix(subject, own, verdict)
    except UndecidedError:
        verdict.wrong = "undecided: re.fullmatch takes too long"
    return verdict


def look_at_prefix(subject: Subject, ids: list[int], verdict: Verdict) -> None:
    automaton, pattern, text = subject.automaton, subject.pattern, verdict.text
    state = automaton.initial_state
    allowed = []
    for token in [*ids, None]:
        if state == oc.DEAD:
            verdict.wrong = "the automaton itself refuses what was generated"
            return
        if automaton.is_accepting(state):
            allowed.append(len(automaton.allowed_tokens(state)))
        if token is not None:
            state = automaton.next_state(state, token)
    verdict.n_ends = len(allowed)
    verdict.n_allowed = int(statistics.median(allowed)) if allowed else 0
    verdict.to_go = automaton.min_tokens_to_accept(state)
    rest = completion(automaton, state)
    verdict.viable = rest is not None and matches(pattern, text + rest)
    if not verdict.viable:
        verdict.wrong = f"no viable prefix: {rest!r} does not complete it"
    verdict.second = second_opinion(pattern, text)


# -- models and modes --------------------------------------------------------------------------------------------------


def tiny_llama(vocabulary: oc.Vocabulary, pad: int, seed: int, layers: int = 2, hidden: int = 64) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=list(vocabulary.eos_token_ids),
        pad_token_id=pad,
    )
    return LlamaForCausalLM(config).eval()


@dataclass
class Setting:
    """What all patterns are decoded with."""

    vocabulary: oc.Vocabulary
    model: Any
    assistant: Any
    pad: int
    prompts: list[list[int]]  # of different lengths
    decode: Callable[[list[int]], str] | None = None
    encode_bytes: Callable[[bytes], list[int]] | None = None

    def one(self) -> dict[str, torch.Tensor]:
        ids = torch.tensor([self.prompts[0]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def batch(self) -> dict[str, torch.Tensor]:
        width = max(map(len, self.prompts))
        return {
            "input_ids": torch.tensor([[self.pad] * (width - len(p)) + p for p in self.prompts]),
            "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in self.prompts]),
        }

    def echo(self, subject: Subject) -> dict[str, torch.Tensor]:
        """A prompt with a text of the language in it, for prompt lookup to find."""
        sample = completion(subject.automaton, subject.automaton.initial_state) or b""
        spelled = [] if self.encode_bytes is None else self.encode_bytes(sample)
        ids = torch.tensor([self.prompts[0] + 2 * spelled + self.prompts[1] + spelled[: len(spelled) // 2]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


_SAMPLING = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
_GREEDY = {"do_sample": False}


def _mode(setting: Setting, subject: Subject, mode: str, turn: int) -> dict[str, Any]:
    """Arguments for `generate`; modes that can do both take turns between greedy and sampling."""
    either = _SAMPLING if turn % 2 else _GREEDY
    match mode:
        case "greedy":
            return {**setting.one(), **_GREEDY}
        case "sampling":
            return {**setting.one(), **_SAMPLING, "num_return_sequences": 2}
        case "beams":
            return {**setting.one(), **_GREEDY, "num_beams": 4}
        case "beam-sampling":
            return {**setting.one(), **_SAMPLING, "num_beams": 4}
        case "batch":
            return {**setting.batch(), **either}
        case "assisted":
            return {**setting.one(), **either, "assistant_model": setting.assistant}
        case "lookup":
            return {**setting.echo(subject), **either, "prompt_lookup_num_tokens": 4, "max_matching_ngram_size": 2}
    raise ValueError(mode)


MODES = ("greedy", "sampling", "beams", "beam-sampling", "batch", "assisted", "lookup")


def decode(setting: Setting, subject: Subject, mode: str, *, closing: bool, turn: int, seed: int) -> list[Verdict]:
    """Generate with one pattern in one mode, and check every row."""
    torch.manual_seed(seed)
    processor = RegexLogitsProcessor(
        subject.pattern, setting.vocabulary, max_new_tokens=max(1, subject.budget) if closing else None
    )
    arguments = _mode(setting, subject, mode, turn)
    with torch.no_grad():
        out = setting.model.generate(
            **arguments,
            max_new_tokens=subject.budget,
            eos_token_id=list(setting.vocabulary.eos_token_ids),
            pad_token_id=setting.pad,
            logits_processor=[processor],
        )
    start = arguments["input_ids"].shape[1]
    verdicts = [judge(subject, row[start:].tolist(), closing=closing, decoded=setting.decode) for row in out]
    if processor.violations and "beam" not in mode:
        verdicts[0].wrong = verdicts[0].wrong or f"{processor.violations} violations counted"
    return verdicts


def by_chance(subject: Subject, n: int, seed: int) -> list[bool]:
    """Whether a walk of equally probable tokens ends within the budget."""
    rng, automaton = random.Random(seed), subject.automaton
    ended = []
    for _ in range(n):
        state, left = automaton.initial_state, subject.budget
        while state != oc.FINISHED and left:
            ids = automaton.allowed_tokens(state)
            state, left = automaton.next_state(state, int(ids[rng.randrange(len(ids))])), left - 1
        ended.append(state == oc.FINISHED)
    return ended


# -- report ------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    verdicts: list[tuple[Subject, str, str, Verdict]] = field(default_factory=list)  # subject, mode, budget, verdict
    chance: dict[str, list[bool]] = field(default_factory=dict)

    def rows(self, budget: str, mode: str | None = None) -> list[Verdict]:
        return [v for _, m, b, v in self.verdicts if b == budget and mode in (None, m)]

    def table(self, budget: str, modes: Sequence[str]) -> str:
        heads = ("outputs", 8), ("finished", 9), ("matches", 8), ("prefixes ok", 12), ("wrong", 6), ("regex agrees", 13)
        lines = [f"{budget:14s} {' '.join(f'{head:>{width}s}' for head, width in heads)}"]
        for mode in [*modes, None]:
            rows = self.rows(budget, mode)
            if not rows:
                continue
            open_ = [v for v in rows if not v.finished and not v.matches]
            asked = [v.second for v in rows if v.second is not None]
            prefixes = f"{sum(v.viable for v in open_)}/{len(open_)}"
            lines.append(
                f"{mode or 'all':14s} {len(rows):8d} {share(v.finished for v in rows):>9s}"
                f" {share(v.matches for v in rows):>8s} {prefixes:>12s} {sum(bool(v.wrong) for v in rows):6d}"
                f" {f'{sum(asked)}/{len(asked)}' if asked else '-':>13s}"
            )
        return "\n".join(lines)

    def unfinished(self) -> str:
        """The patterns that did not always finish within the plain budget, and why."""
        heads = ("budget", 6), ("finished", 9), ("chance", 7), ("could end", 10), ("among", 7), ("to go", 6)
        lines = [f"{'pattern':58s} {' '.join(f'{head:>{width}s}' for head, width in heads)}"]
        for pattern in dict.fromkeys(s.pattern for s, _, _, _ in self.verdicts):
            rows = [(s, v) for s, _, b, v in self.verdicts if s.pattern == pattern and b == "plain"]
            cut = [v for _, v in rows if not v.finished]
            if not cut:
                continue
            n_steps = sum(v.n_tokens + 1 for v in cut)
            ends = share_of(sum(v.n_ends for v in cut), n_steps)
            among = [v.n_allowed for v in cut if v.n_ends]
            lines.append(
                f"{shown(pattern):58s} {rows[0][0].budget:6d} {f'{len(rows) - len(cut)}/{len(rows)}':>9s}"
                f" {share(self.chance[pattern]):>7s} {ends:>10s}"
                f" {int(statistics.median(among)) if among else 0:7d} {max(v.to_go for v in cut):6d}"
            )
        return "\n".join(lines)


def shown(pattern: str) -> str:
    text = "".join(c if c.isprintable() and ord(c) < 0x300 else f"\\u{ord(c):04x}" for c in pattern)
    return text if len(text) <= 56 else text[:53] + "..."


def share(flags: Any) -> str:
    flags = list(flags)
    return share_of(sum(flags), len(flags))


def share_of(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"


def hf_setting(directory: str, seed: int) -> Setting:
    from transformers import AutoTokenizer

    from processors.tokenizers import vocabulary_from

    tokenizer = AutoTokenizer.from_pretrained(directory)
    vocabulary = vocabulary_from(tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else vocabulary.eos_token_ids[0]
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    lead = prompts[0]
    before = tokenizer.decode(lead, clean_up_tokenization_spaces=False)

    def decoded(ids: list[int]) -> str:
        """Behind a prompt: some tokenizers drop the space at the beginning of a text."""
        return str(tokenizer.decode(lead + ids, clean_up_tokenization_spaces=False))[len(before) :]

    def encode_bytes(text: bytes) -> list[int]:
        return list(tokenizer.encode(text.decode(), add_special_tokens=False))

    models = [tiny_llama(vocabulary, pad, seed + k) for k in range(2)]
    return Setting(vocabulary, *models, pad, prompts, decoded, encode_bytes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a Hugging Face tokenizer directory")
    parser.add_argument("--cases", required=True, type=pathlib.Path, help="regex.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--limit", type=int, help="only so many patterns, drawn ones and own ones in turn")
    parser.add_argument("--threads", type=int, default=1, help="of torch; more than are idle make it slow")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    setting = hf_setting(args.tokenizer, args.seed)
    refused: Counter[str] = Counter()
    drawn = draw(args.cases, setting.vocabulary, 40, args.seed, refused)
    own = subjects_of(OWN, setting.vocabulary, refused, own=True)
    subjects = [*drawn, *own]
    if args.limit is not None:
        random.Random(args.seed).shuffle(subjects)
        subjects = subjects[: args.limit]
    print(f"{len(subjects)} patterns ({sum(s.own for s in subjects)} own), {setting.vocabulary.size} token ids; "
          f"refused and left out: {dict(refused) or 'none'}")  # fmt: skip
    tally, begin = Tally(), time.perf_counter()
    seconds: Counter[str] = Counter()
    for k, subject in enumerate(tqdm(subjects, unit="pattern", disable=None)):
        for mode in args.modes:
            for budget in args.budgets:
                start = time.perf_counter()
                verdicts = decode(
                    setting, subject, mode, closing=budget == "closing", turn=k, seed=1000 * args.seed + k
                )
                seconds[f"{budget} {mode}"] += time.perf_counter() - start
                tally.verdicts += [(subject, mode, budget, v) for v in verdicts]
        tally.chance[subject.pattern] = by_chance(subject, 20, k)
    print(f"{time.perf_counter() - begin:.0f} s\n")
    for budget in args.budgets:
        print(tally.table(budget, args.modes), "\n")
    if "plain" in args.budgets:
        print("Not finished within the plain budget.  could end: steps at which EOS was allowed; among: so many tokens")
        print(tally.unfinished(), "\n")
        chance = [one for subject in subjects for one in tally.chance[subject.pattern]]
        for label, outlasts in (("all texts are shorter than the budget", False), ("some text is not", True)):
            rows = [(s, v) for s, _, b, v in tally.verdicts if b == "plain" and s.may_outlast == outlasts]
            n = len({s.pattern for s, _ in rows})
            print(f"{n} patterns of which {label}: {share(v.finished for _, v in rows)} finished")
        print(f"walks by chance that end within the budget: {share(chance)}")
    wrong = [(s, m, b, v) for s, m, b, v in tally.verdicts if v.wrong]
    for subject, mode, budget, verdict in wrong:
        print(f"WRONG {subject.pattern!r} {mode} {budget}: {verdict.wrong}\n  {verdict.text!r}")
    for subject, mode, _, v in tally.verdicts:
        if v.second is False and v.viable:
            print(f"note: `regex` says that {v.text!r} ({mode}) begins no match of {subject.pattern!r}; it is wrong")
    if args.out:
        report = {
            "patterns": [
                {
                    "pattern": s.pattern,
                    "own": s.own,
                    "shortest": s.shortest,
                    "outlasts_budget": s.may_outlast,
                    "chance": statistics.mean(tally.chance[s.pattern]),
                }
                for s in subjects
            ],
            "seconds": dict(seconds),
            "refused": dict(refused),
            "outputs": [
                {
                    "pattern": s.pattern,
                    "mode": m,
                    "budget": b,
                    **vars(v),
                    "text": v.text.decode(errors="backslashreplace"),
                }
                for s, m, b, v in tally.verdicts
            ],
        }
        args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
