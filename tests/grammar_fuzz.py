"""One grammar put to the test: its token automaton against lark, text by text and prefix by prefix.

`Trial(case, rng).run()` asks only what the public interface of a token automaton offers, and the oracle:

* lark takes the grammar iff the engine does (unless a feature or a limit is refused by name), and a grammar that is
  said to have no text has none;
* all texts of a few letters: each is accepted iff lark parses it, and each prefix of one is live. A live state that
  is no prefix of these leads to a longer text, found through the masks, which lark parses as well;
* longer texts, by random derivations and by walks through the masks, and single edits of them: lark has the verdict;
* from a sample of states: a token of several bytes is allowed iff its bytes are, one by one; `next_state` agrees with
  the mask; EOS is allowed iff the text may end; a text means the same however it is cut into tokens.
"""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import outlines_core as oc
from tests.grammar_oracle import LarkOracle, TextMaker, indenter, oracle_of, texts_over
from tests.grammar_strategies import LALR, Case
from tests.json_texts import tokens_of

__all__ = ["Finding", "Outcome", "Trial", "alarm", "compiled", "reproducer", "toy_vocabulary"]

Compile = Callable[..., Any]


@dataclass(frozen=True)
class Finding:
    """A disagreement.  `kind` says which rule is broken, `detail` by what."""

    kind: str
    detail: str


@dataclass
class Outcome:
    """What one trial saw.

    Attributes:
        lark_refused: lark's error for the grammar, or "".
        refused: the engine's, or "".
        decisions: judged by lark: "text accepted", "text refused", "prefix live", "prefix dead".
        mask_bits: tokens of masks that were compared with walks over their bytes.
        unconfirmed: live prefixes whose completion was not found within the bounds of the search.
        undecided: texts for which lark has no verdict.
        odd: exceptions of lark that are no refusals, each with a text that causes it.
        limits: calls that ended in LimitExceededError.
        findings: disagreements; none is the goal.
        compile_seconds: the engine's share of the time before the first state.
    """

    lark_refused: str = ""
    refused: str = ""
    decisions: Counter[str] = field(default_factory=Counter)
    mask_bits: int = 0
    unconfirmed: list[str] = field(default_factory=list)
    undecided: int = 0
    odd: dict[str, str] = field(default_factory=dict)
    limits: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    compile_seconds: float = 0.0


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """A `TimeoutError` after so many seconds of CPU, and again: each step of a trial ends with the first that comes."""

    def stop(*_: Any) -> None:
        raise TimeoutError("the step takes too long")

    handler = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


@functools.cache
def toy_vocabulary(letters: str) -> oc.Vocabulary:
    """Every byte (token b is the byte b), a few dozen tokens over the letters, pieces of characters.  EOS is last."""
    rng = random.Random(f"vocabulary {letters}")
    pool = letters + letters + "zé\n "
    tokens = [bytes([b]) for b in range(256)]
    tokens += ["".join(rng.choices(letters, k=rng.choice([2, 2, 3, 3, 4, 5]))).encode() for _ in range(36)]
    tokens += ["".join(rng.choices(pool, k=rng.choice([2, 3, 4]))).encode() for _ in range(10)]
    whole = "".join(rng.choices(letters + "é日", k=40)).encode()
    tokens += [whole[at : at + rng.randint(2, 5)] for at in rng.sample(range(len(whole) - 5), 8)]
    known: dict[bytes, list[int]] = {}
    for i, token in enumerate(tokens):  # drawn twice: two ids of one text
        known.setdefault(token, []).append(i)
    return oc.Vocabulary(len(tokens), known)


def compiled(case: Case, vocabulary: oc.Vocabulary, compile_grammar: Compile | None = None) -> Any:
    """The token automaton of a case."""
    make = compile_grammar or oc.compile_grammar
    postlex = indenter(case.indentation) if case.indentation else None
    return make(case.grammar, vocabulary, postlex=postlex, **case.options)


class Trial:
    """One case.

    Args:
        compile_grammar: in place of `oc.compile_grammar`.
        length: texts of up to so many letters are all tried; None: about `n_texts` of them, fewer for slow oracles.
        n_long: longer texts that are derived, and as many that are walked.
        n_masks: states whose masks are compared with walks over bytes.
    """

    def __init__(
        self,
        case: Case,
        rng: random.Random,
        *,
        compile_grammar: Compile | None = None,
        length: int | None = None,
        n_texts: int = 1200,
        n_long: int = 6,
        n_masks: int = 12,
    ) -> None:
        self.case, self.rng = case, rng
        self.compile_grammar = compile_grammar
        n_texts = n_texts if case.lexer in LALR else n_texts // 3
        n_texts *= 5 if case.indentation else 1  # a block takes six characters
        self.length = _length_for(case.letters, n_texts) if length is None else length
        self.n_long, self.n_masks = n_long, n_masks
        self.vocabulary = toy_vocabulary(case.letters)
        self.mask = oc.allocate_bitmask(1, self.vocabulary)[0]
        self.text_of: dict[int, bytes] = {i: bytes(t) for t, ids in self.vocabulary.items() for i in ids}
        self.longer = [(i, token) for i, token in self.text_of.items() if len(token) > 1]
        self.eos = self.vocabulary.size - 1
        self.outcome = Outcome()
        self.oracle: LarkOracle
        self.automaton: Any = None
        self.viable: dict[bytes, bytes] = {}
        self.doubtful: set[bytes] = set()
        self.completions: dict[int, bytes | None] = {}
        self.dead_ends: set[int] = set()
        self.visited: list[tuple[bytes, int]] = []
        self.positives: list[str] = []

    def fault(self, kind: str, detail: Any) -> None:
        text = repr(detail) if isinstance(detail, bytes) else str(detail)
        self.outcome.findings.append(Finding(kind, text[:400]))

    def run(self) -> Outcome:
        """All of it.  Errors that are not the engine's own (`ConstraintError`) are findings as well."""
        if not self.guarded("loading", self.start) or self.automaton is None:
            return self.ended()
        for name, step in (
            ("short texts", self.short_texts),
            ("derived texts", self.derived_texts),
            ("walks", self.walked_texts),
            ("masks", self.masks),
            ("forced bytes and least tokens", self.contracts),
        ):
            if not self.guarded(name, step):
                break
        return self.ended()

    def ended(self) -> Outcome:
        if hasattr(self, "oracle"):
            self.outcome.odd = dict(self.oracle.odd_texts)
            if self.oracle.unusable:
                self.outcome.odd[self.oracle.unusable] = ""
        return self.outcome

    def guarded(self, name: str, step: Callable[[], None]) -> bool:
        """Run one step; False if it was stopped from outside for taking too long (then the others would as well)."""
        try:
            step()
        except oc.LimitExceededError as error:
            self.outcome.limits[str(error)[:80]] += 1
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            frames = traceback.extract_tb(error.__traceback__)
            inside = [frame for frame in frames if "outlines_core" in frame.filename]
            last = (inside or frames)[-1]
            place = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            if not isinstance(error, TimeoutError):
                self.fault(f"{type(error).__name__} at {place}", f"{name}: {error}")
            elif inside:
                self.fault("too slow", f"{name}, stopped at {place}")
                return False
            else:
                self.outcome.odd["too slow outside of the engine"] = f"{name}, stopped at {place}"
                return False
        return True

    # -- the grammar ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Both sides load the grammar."""
        self.oracle = oracle = oracle_of(self.case)
        outcome = self.outcome
        outcome.lark_refused = oracle.refused
        began = time.perf_counter()
        try:
            self.automaton = compiled(self.case, self.vocabulary, self.compile_grammar)
        except oc.ConstraintError as error:
            self.refused(error)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001
            outcome.refused = type(error).__name__
            self.fault(f"{type(error).__name__} at compile time", error)
        else:
            if oracle.refused:
                self.fault("lark refuses the grammar, the engine does not", oracle.refused)
            if oracle.lark is None:
                self.automaton = None
        outcome.compile_seconds = time.perf_counter() - began

    def refused(self, error: oc.ConstraintError) -> None:
        """The engine refuses the grammar: rightly?"""
        outcome, oracle = self.outcome, self.oracle
        outcome.refused = name = type(error).__name__
        if isinstance(error, oc.UnsupportedFeatureError):
            outcome.refused = f"{name}: {error.feature}"
        elif isinstance(error, oc.ConstraintSyntaxError):
            if not oracle.refused and not oracle.unusable:
                self.fault("lark takes the grammar, the engine does not", error)
        elif isinstance(error, oc.UnsatisfiableError):
            if oracle.refused:
                self.fault("lark refuses the grammar, the engine finds it empty", oracle.refused)
            elif oracle.lark is not None:
                self.empty()

    def empty(self) -> None:
        """The engine says that there is no text."""
        maker = TextMaker(self.oracle, self.rng)
        texts = list(texts_over(self.case.letters, self.length))
        texts += [text for _ in range(self.n_long) if (text := maker.text()) is not None]
        for text in texts:
            if self.verdict(text):
                self.fault("said to be unsatisfiable", text.encode())
                return
        self.outcome.decisions["prefix dead"] += 1

    def verdict(self, text: str) -> bool | None:
        verdict = self.oracle.parses(text)
        self.outcome.undecided += verdict is None
        return verdict

    # -- all short texts ------------------------------------------------------------------------------------------

    def short_texts(self) -> None:
        """Every prefix of every text over the letters, as far as states are live."""
        accepted: set[bytes] = set()
        undecided: set[bytes] = set()
        for text in texts_over(self.case.letters, self.length):
            verdict = self.verdict(text)
            if verdict:
                accepted.add(text.encode())
                self.viable_through(text.encode())
            elif verdict is None:
                undecided.add(text.encode())
        for whole in undecided:
            self.doubtful.update(whole[:k] for k in range(len(whole) + 1))
        automaton = self.automaton
        letters = [c.encode() for c in self.case.letters]
        todo = [(b"", automaton.initial_state, 0)] if self.live(b"", automaton.initial_state) else []
        while todo:
            before, state, n_letters = todo.pop()
            self.visited.append((before, state))
            if before not in undecided:
                self.accepts(before, automaton.is_accepting(state), before in accepted)
            if n_letters == self.length:
                continue
            for letter in letters:
                now, at = state, before
                for byte in letter:
                    now, at = automaton.next_state(now, byte), at + bytes([byte])
                    if not self.live(at, now):
                        break
                else:
                    todo.append((at, now, n_letters + 1))
        self.positives += [text.decode() for text in self.rng.sample(sorted(accepted), min(4, len(accepted)))]

    def viable_through(self, text: bytes) -> None:
        for k in range(len(text), -1, -1):
            if text[:k] in self.viable:
                break
            self.viable[text[:k]] = text

    def live(self, text: bytes, state: int) -> bool:
        """Is the state live, and rightly so?"""
        live = state != oc.DEAD
        witness = self.viable.get(text)
        if witness is not None:
            self.outcome.decisions["prefix live"] += 1
            if not live:
                self.fault("dead, but a prefix of a text that lark parses", text + b" | " + witness[len(text) :])
        elif live:
            self.justify(text, state)
        elif text not in self.doubtful:
            self.outcome.decisions["prefix dead"] += 1
        return live

    def accepts(self, text: bytes, mine: bool, larks: bool) -> None:
        self.outcome.decisions["text accepted" if larks else "text refused"] += 1
        if mine != larks:
            self.fault("lark parses it, but refused" if larks else "lark refuses it, but accepted", text)

    def justify(self, text: bytes, state: int) -> None:
        """A live state that is no known prefix: look for a completion, and ask lark about it."""
        rest = self.completion(state, text)
        if rest is None:
            self.outcome.unconfirmed += [] if state in self.dead_ends else [repr(text)]
            return
        whole = text + rest
        try:
            verdict = self.verdict(whole.decode())
        except UnicodeDecodeError:
            self.fault("accepts what is no UTF-8", whole)
            return
        if verdict is None:
            self.outcome.unconfirmed.append(repr(text))
        elif verdict:
            self.outcome.decisions["prefix live"] += 1
            self.viable_through(whole)
        else:
            self.fault("live, but lark refuses its completion", text + b" | " + rest)

    def completion(self, state: int, text: bytes) -> bytes | None:
        """A way to an accepting state, breadth-first over bytes; None if it is not found within the bounds."""
        if state not in self.completions:
            letters = set(self.case.letters.encode())
            if not self.search(state, text, letters, 3000) and not self.search(state, text, set(range(256)), 1500):
                self.completions[state] = None
        return self.completions[state]

    def search(self, state: int, text: bytes, first: set[int], bound: int) -> bool:
        """Fill `completions` along a way to an accepting state; over the bytes of `first` where they are allowed."""
        automaton = self.automaton
        origin: dict[int, tuple[int, int]] = {state: (0, 0)}
        todo = deque([state])
        while todo and len(origin) < bound:
            at = todo.popleft()
            known = self.completions.get(at)
            if automaton.is_accepting(at) or known is not None:
                rest = known or b""
                self.completions[at] = rest
                while at != state:
                    at, byte = origin[at]
                    rest = bytes([byte]) + rest
                    self.completions[at] = rest
                return True
            automaton.fill_mask(at, self.mask)
            allowed = [byte for byte in range(256) if self.mask[byte >> 5] >> (byte & 31) & 1]
            if not allowed:
                self.fault("live, but nothing is allowed", f"at the earliest after {text!r}")
                return False
            for byte in [byte for byte in allowed if byte in first] or allowed:
                following = automaton.next_state(at, byte)
                if following == oc.DEAD:
                    self.fault(
                        "the mask allows a byte that leads nowhere", f"{byte:#x}, at the earliest after {text!r}"
                    )
                elif following not in origin:
                    origin[following] = (at, byte)
                    todo.append(following)
        if not todo and len(first) == 256:
            self.fault("live, but a dead end", f"{text!r}: {len(origin)} states from there, none of them accepting")
            self.dead_ends.update(origin)
            self.completions.update(dict.fromkeys(origin))
        return False

    # -- longer texts ---------------------------------------------------------------------------------------------

    def derived_texts(self) -> None:
        maker = TextMaker(self.oracle, self.rng)
        for _ in range(2 * self.n_long):
            text = maker.text()
            if text is not None:
                self.judge(text)
                if self.rng.random() < 0.6:
                    self.judge(self.edited(text))

    def walked_texts(self) -> None:
        """Texts by choosing among allowed tokens, then to the end."""
        automaton, rng = self.automaton, self.rng
        spaces = set(self.case.letters.encode())
        for _ in range(self.n_long):
            state, text = automaton.initial_state, b""
            goal = rng.randint(2, 24)
            while len(text) < goal:
                ids = self.allowed(state, text)
                near = [i for i in ids if set(self.text_of[i]) <= spaces]
                if not ids or (automaton.is_accepting(state) and rng.random() < 0.1):
                    break
                token = rng.choice(near if near and rng.random() < 0.93 else ids)
                following = automaton.next_state(state, token)
                if following == oc.DEAD:
                    self.fault("the mask allows a token that leads nowhere", text + b" | " + self.text_of[token])
                    return
                state, text = following, text + self.text_of[token]
                self.visited.append((text, state))
            rest = self.completion(state, text)
            if rest is None:
                self.outcome.unconfirmed += [] if state in self.dead_ends else [repr(text)]
                continue
            try:
                whole = (text + rest).decode()
            except UnicodeDecodeError:
                self.fault("accepts what is no UTF-8", text + rest)
                continue
            self.judge(whole)
            for _ in range(2):
                self.judge(self.edited(whole))
        for one in list(self.positives):
            self.judge(self.edited(one))

    def edited(self, text: str) -> str:
        """`text` with one letter more, less or other."""
        rng = self.rng
        at, pick = rng.randint(0, len(text)), rng.random()
        new = rng.choice(self.case.letters if rng.random() < 0.85 else "zé\n A日")
        return text[:at] + ("" if pick < 0.35 else new) + text[at + (pick < 0.7) :]

    def judge(self, text: str) -> None:
        """A text of any length: lark's verdict, the engine's, and that of its prefixes."""
        verdict = self.verdict(text)
        if verdict is None:
            return
        data = text.encode()
        if verdict:
            self.viable_through(data)
            self.positives.append(text)
        n, state = self.automaton.accept_tokens(self.automaton.initial_state, list(data))
        self.accepts(data, n == len(data) and self.automaton.is_accepting(state), verdict)
        if n < len(data):
            self.live(data[: n + 1], oc.DEAD)
        elif not verdict and self.rng.random() < 0.5:
            self.live(data, state)

    # -- masks and tokens -----------------------------------------------------------------------------------------

    def allowed(self, state: int, text: bytes) -> list[int]:
        """The allowed text tokens.  EOS is allowed iff the text may end."""
        automaton = self.automaton
        automaton.fill_mask(state, self.mask)
        bits = np.unpackbits(self.mask.view(np.uint8), bitorder="little")
        ids: list[int] = np.flatnonzero(bits).tolist()
        accepting = automaton.is_accepting(state)
        if (self.eos in ids) != accepting or (automaton.next_state(state, self.eos) == oc.FINISHED) != accepting:
            self.fault("EOS", text)
        return [i for i in ids if i != self.eos]

    def masks(self) -> None:
        for text, state in self.rng.sample(self.visited, min(self.n_masks, len(self.visited))):
            self.mask_of(text, state)
            self.recut(text, state)
        for one in self.rng.sample(self.positives, min(4, len(self.positives))):
            ids = tokens_of(self.vocabulary, one.encode(), self.rng)
            n, state = self.automaton.accept_tokens(self.automaton.initial_state, ids)
            if n < len(ids) or not self.automaton.is_accepting(state):
                self.fault("accepted as bytes, refused in other tokens", one.encode())

    def mask_of(self, text: bytes, state: int) -> None:
        """The mask is that of a walk over the bytes of each token."""
        automaton = self.automaton
        allowed = set(self.allowed(state, text))
        after: dict[bytes, int] = {b"": state}
        for byte in range(256):
            after[bytes([byte])] = automaton.next_state(state, byte)
        for token_id, token in self.text_of.items():
            for k in range(1, len(token) + 1):
                part = token[:k]
                if part not in after:
                    before = after[part[:-1]]
                    after[part] = automaton.next_state(before, part[-1]) if before != oc.DEAD else oc.DEAD
            walked, at_once = after[token], automaton.next_state(state, token_id)
            if (token_id in allowed) != (walked != oc.DEAD):
                self.fault("the mask is not that of its bytes", text + b" | " + token)
            if (at_once != oc.DEAD) != (walked != oc.DEAD):
                self.fault("next_state is not that of its bytes", text + b" | " + token)
            elif at_once != walked and self.differ(at_once, walked):
                self.fault("the state after a token is not that after its bytes", text + b" | " + token)
        self.outcome.mask_bits += len(self.text_of)

    def differ(self, one: int, other: int) -> bool:
        """Do two states differ in what may come next?"""
        masks = oc.allocate_bitmask(2, self.vocabulary)
        for row, state in zip(masks, (one, other), strict=True):
            self.automaton.fill_mask(state, row)
        return bool((masks[0] != masks[1]).any())

    def recut(self, text: bytes, state: int) -> None:
        """The same bytes in other tokens lead to a state with the same mask."""
        ids = tokens_of(self.vocabulary, text, self.rng)
        n, other = self.automaton.accept_tokens(self.automaton.initial_state, ids)
        if n < len(ids) or (other != state and self.differ(other, state)):
            self.fault("another cut into tokens, another state", text)

    def contracts(self) -> None:
        if isinstance(self.automaton, oc.TokenAutomaton):
            for text, state in self.rng.sample(self.visited, min(self.n_masks, len(self.visited))):
                self.contract(text, state)

    def contract(self, text: bytes, state: int) -> None:
        """What else a token automaton promises of a state."""
        automaton = self.automaton
        forced = automaton.forced_bytes(state)
        rest = self.completion(state, text)
        if rest is not None and not rest.startswith(forced):
            self.fault("forced_bytes", text + b" | " + forced + b" | " + rest)
        n, after = automaton.accept_tokens(state, list(forced))
        if n < len(forced) or (forced and automaton.is_accepting(state)):
            self.fault("forced_bytes", text + b" | " + forced)
        elif not automaton.is_accepting(after) and len({self.text_of[i][0] for i in self.allowed(after, text)}) == 1:
            self.fault("forced_bytes could be longer", text + b" | " + forced)
        left = automaton.min_tokens_to_accept(state)
        if (left == 0) != automaton.is_accepting(state) or (rest is not None and left > len(rest)):
            self.fault("min_tokens_to_accept", f"{left} after {text!r}")
        elif left:
            nearer = {automaton.min_tokens_to_accept(automaton.next_state(state, i)) for i in self.allowed(state, text)}
            if min(nearer) != left - 1:
                self.fault("min_tokens_to_accept", f"{left} after {text!r}, then {sorted(nearer)}")


def _length_for(letters: str, n_texts: int) -> int:
    """The greatest length with at most `n_texts` texts (3 at least)."""
    length, n = 0, 1
    while n + len(letters) ** (length + 1) <= n_texts:
        length += 1
        n += len(letters) ** length
    return max(3, length)


def reproducer(options: Iterable[str], index: int, case: Case, finding: Finding) -> str:
    """One line that says it all: how to see it again, what was found, the grammar."""
    command = " ".join(["scripts/grammar_report fuzz", *options, f"--start {index} --grammars 1"])
    return f"{command} | {finding.kind} | {finding.detail} | {case.lexer} {case.start} {case.flags} {case.grammar!r}"
