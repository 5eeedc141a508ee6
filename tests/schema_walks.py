"""One schema put to the test: walks over its token automata, and texts that they must take or refuse.

`Trial(schema, ...).run()` asks only what the public interface of a token automaton offers, and the oracle:

* walks, each in a manner of its own (`MANNERS`), until the text may end or is long, with the shortest completion from
  every state on the way: each finished text is valid, in schema order where that was asked for, and accepted in any
  tokenization; from some states that completion is also found token by token, as `min_tokens_to_accept` leads;
* on the way: no live state is stuck, masks and `next_state` agree, EOS iff accepting, `forced_bytes` and
  `min_tokens_to_accept` hold;
* valid values are accepted in several layouts and odd spellings, invalid ones, repeated keys and broken texts refused.
"""

from __future__ import annotations

import json
import random
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import outlines_core as oc
from outlines_core.bitmask import unpack_ids
from tests.json_oracle import DuplicateKeyError, Oracle, frozen, loads
from tests.json_order import ordered, out_of_order
from tests.json_texts import LAYOUTS, Tokens, edited, respelled, spelled
from tests.schema_values import ValueMaker, mutated

__all__ = ["MANNERS", "Finding", "Outcome", "Trial", "Walkers", "reproducer"]


@dataclass(frozen=True)
class Finding:
    """A disagreement.  `kind` says which rule is broken, `detail` by what."""

    kind: str
    detail: str


@dataclass
class Outcome:
    """What one trial saw.

    Attributes:
        refused: the error of the compilation, by name, or "".
        texts: how many texts were judged, by "valid" and "invalid".
        limits: calls that ended in LimitExceededError.
        findings: disagreements; none is the goal.
    """

    refused: str = ""
    texts: Counter[str] = field(default_factory=Counter)
    limits: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


# -- manners of walking ------------------------------------------------------------------------------------------------

MANNERS: dict[str, Callable[[bytes], float]] = {
    "uniform": lambda token: 1.0,
    "structure": lambda token: 30.0 if any(c in b'"[]{},:' for c in token) else 1.0,
    "closing": lambda token: 100.0 if token in (b'"', b"]", b"}", b'"]', b'"}', b"]]", b"}}") else 1.0,
    "digits and escapes": lambda token: 40.0 if any(c in b"0123456789.eE+-\\u" for c in token) else 0.3,
    "rare": lambda token: 30.0 if len(token) > 2 else 10.0 if max(token) > 127 else 0.5,
    "white": lambda token: 30.0 if token.isspace() else 1.0,
    "opening": lambda token: 50.0 if token[-1:] in b"[{" else 1.0,
}


class Walkers:
    """A vocabulary with the weight of each token in each manner (made once, used for every schema)."""

    def __init__(self, vocabulary: oc.Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.tokens = Tokens(vocabulary)
        self.eos = set(vocabulary.eos_token_ids)
        self.text: dict[int, bytes] = {i: bytes(t) for t, ids in vocabulary.items() for i in ids if t}
        self.every = list(self.text)
        self.weights: dict[str, NDArray[np.float64]] = {}
        for name, weight in MANNERS.items():
            self.weights[name] = np.zeros(vocabulary.size)
            for i, token in self.text.items():
                self.weights[name][i] = weight(token)
        ending = [b'"', b"]", b"}", b'"}', b'"]', b":", b",", b"0", b"1", b"a", b"e", b"-", b".", b"[", b"{", b" "]
        self.first = [self.tokens.ids[t] for t in ending if t in self.tokens.ids]
        self.bytes = [self.tokens.ids[bytes([b])] for b in range(256) if bytes([b]) in self.tokens.ids]


# -- a trial -----------------------------------------------------------------------------------------------------------


class Trial:
    """One schema against one vocabulary.

    Args:
        n_walks: walks in schema order (each in a random manner); one more runs in any order.
        n_values: values that are made up, and once more with an edit.
        max_tokens: tokens after which a walk heads for the end.
    """

    def __init__(
        self,
        schema: Any,
        walkers: Walkers,
        rng: random.Random,
        *,
        n_walks: int = 4,
        n_values: int = 6,
        max_tokens: int = 40,
    ) -> None:
        self.schema, self.walkers, self.rng = schema, walkers, rng
        self.n_walks, self.n_values, self.max_tokens = n_walks, n_values, max_tokens
        self.oracle = Oracle(schema)
        self.outcome = Outcome()
        self.mask = oc.allocate_bitmask(1, walkers.vocabulary)[0]
        self.automata: dict[str, Any] = {}
        self.ended: set[tuple[str, bytes]] = set()

    def fault(self, kind: str, detail: Any) -> None:
        text = detail.decode("utf-8", "backslashreplace") if isinstance(detail, bytes) else str(detail)
        self.outcome.findings.append(Finding(kind, text[:600]))

    def run(self) -> Outcome:
        """All of it.  Errors that are not the engine's own (`ConstraintError`) are findings as well."""
        values = list(self.values())
        try:
            for order in ("schema", "any"):
                self.automata[order] = oc.compile_json_schema(
                    self.schema, self.walkers.vocabulary, property_order=order
                )
        except oc.UnsatisfiableError:
            self.outcome.refused = "UnsatisfiableError"
            if self.automata:
                self.fault("unsatisfiable in any order only", self.schema)
            for value, verdict in values:
                if verdict:
                    self.fault("said to be unsatisfiable", spelled(value))
                    break
            return self.outcome
        except oc.UnsupportedFeatureError as error:
            self.outcome.refused = f"UnsupportedFeatureError: {error.feature}"
            return self.outcome
        except oc.LimitExceededError:
            self.outcome.refused = "LimitExceededError"
            return self.outcome
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            self.outcome.refused = type(error).__name__
            kind = "too slow" if isinstance(error, TimeoutError) else type(error).__name__
            self.fault(f"{kind} at compile time", error)
            return self.outcome
        manners = self.rng.sample(list(MANNERS), min(self.n_walks, len(MANNERS)))
        steps: list[tuple[str, Callable[[], None]]] = [
            *((f"walk ({m})", lambda m=m: self.walk("schema", m)) for m in manners),
            ("walk (any order)", lambda: self.walk("any", self.rng.choice(list(MANNERS)))),
            *(("value", lambda v=v, ok=ok: self.value(v, ok)) for v, ok in values),
        ]
        for name, step in steps:
            if not self.guarded(name, step):
                break
        return self.outcome

    def guarded(self, name: str, step: Callable[[], None]) -> bool:
        """Run one step; False if it was stopped from outside for taking too long (then the others would as well)."""
        try:
            step()
        except oc.LimitExceededError as error:
            self.outcome.limits[str(error)[:80]] += 1
        except Exception as error:  # noqa: BLE001
            frames = traceback.extract_tb(error.__traceback__)
            inside = [frame for frame in frames if "outlines_core" in frame.filename] or frames
            place = f"{inside[-1].filename.rpartition('/')[2]}:{inside[-1].lineno}"
            if isinstance(error, TimeoutError):
                self.fault("too slow", f"{name}, stopped at {place}")
                return False
            self.fault(f"{type(error).__name__} at {place}", f"{name}: {error}")
        return True

    def judged(self, value: Any) -> bool | None:
        verdict = self.oracle.verdict(value)
        if verdict is not None:
            self.outcome.texts["valid" if verdict else "invalid"] += 1
        return verdict

    # -- walks ----------------------------------------------------------------------------------------------------

    def walk(self, order: str, manner: str) -> None:
        """One text by choosing among allowed tokens, then the shortest ends of all states on the way."""
        automaton, rng, walkers = self.automata[order], self.rng, self.walkers
        weights = walkers.weights[manner]
        state, text = automaton.initial_state, b""
        visited: list[tuple[int, bytes]] = []
        while len(visited) < self.max_tokens:
            visited.append((state, text))
            ids = self.allowed(automaton, state, text)
            if ids is None:
                return
            if automaton.is_accepting(state) and (not len(ids) or rng.random() < 0.3):
                break
            heavy = np.cumsum(weights[ids])
            chosen = int(ids[np.searchsorted(heavy, rng.random() * heavy[-1]).clip(max=len(ids) - 1)])
            following = automaton.next_state(state, chosen)
            if following == oc.DEAD:
                self.fault("the mask allows a token that leads nowhere", text + b" | " + walkers.text[chosen])
                return
            state, text = following, text + walkers.text[chosen]
        for at, before in [(state, text), *rng.sample(visited, min(2, len(visited)))]:
            end = self.shortest_end(automaton, at, before)
            if end is not None:
                self.forced(automaton, at, before, end)
                self.finished(order, before + end)
        for at, before in visited:
            self.finished(order, before + automaton.completion(at))
        if not automaton.explain(state):
            self.fault("explain says nothing", text)

    def allowed(self, automaton: Any, state: int, text: bytes) -> NDArray[Any] | None:
        """The allowed text tokens; None after a finding that ends the walk."""
        walkers = self.walkers
        automaton.fill_mask(state, self.mask)
        every = unpack_ids(self.mask)
        ids = every[walkers.weights["uniform"][every] > 0]
        accepting = automaton.is_accepting(state)
        if len(every) - len(ids) != (len(walkers.eos) if accepting else 0):
            self.fault("EOS bits", text)
        if not len(every):
            self.fault("stuck", text)
            return None
        some = [int(ids[self.rng.randrange(len(ids))]) for _ in range(3)] if len(ids) else []
        for token_id in self.rng.choices(walkers.every, k=6) + some:
            bit = bool(self.mask[token_id >> 5] >> (token_id & 31) & 1)
            if token_id in walkers.text and bit != (automaton.next_state(state, token_id) != oc.DEAD):
                self.fault("mask and next_state differ", text + b" | " + walkers.text[token_id])
        return ids

    def shortest_end(self, automaton: Any, state: int, text: bytes) -> bytes | None:
        """The text of a way to the end in at most `min_tokens_to_accept` tokens; None after a finding."""
        walkers, end = self.walkers, b""
        left = automaton.min_tokens_to_accept(state)
        while left:
            if automaton.is_accepting(state) or left > 400:
                self.fault("min_tokens_to_accept", f"{left} after {text + end!r}")
                return None
            automaton.fill_mask(state, self.mask)
            for token_id in self.ending(automaton, state):
                following = automaton.next_state(state, token_id)
                if token_id in walkers.text and following != oc.DEAD:
                    nearer = automaton.min_tokens_to_accept(following)
                    if nearer <= left - 1:
                        break
            else:
                self.fault("min_tokens_to_accept", f"{left}, and no token is nearer after {text + end!r}")
                return None
            state, left, end = following, nearer, end + walkers.text[token_id]
        if not automaton.is_accepting(state):
            self.fault("min_tokens_to_accept", f"0 after {text + end!r}")
            return None
        return end

    def ending(self, automaton: Any, state: int) -> Iterator[int]:
        """The allowed tokens, those first with which most texts end."""
        walkers = self.walkers
        yield from walkers.tokens.of(automaton.completion(state))[:1]
        yield from (i for i in walkers.first if self.mask[i >> 5] >> (i & 31) & 1)
        yield from unpack_ids(self.mask).tolist()

    def forced(self, automaton: Any, state: int, text: bytes, end: bytes) -> None:
        """`forced_bytes` is a common prefix, and no longer one exists (bytes tell, for every byte is a token)."""
        forced = automaton.forced_bytes(state)
        if not end.startswith(forced) or (forced and automaton.is_accepting(state)):
            return self.fault("forced_bytes", text + b" | " + forced + b" | " + end)
        for byte in forced:
            state = automaton.next_state(state, self.walkers.tokens.ids[bytes([byte])])
        live = sum(automaton.next_state(state, i) != oc.DEAD for i in self.walkers.bytes)
        if live == 1 and not automaton.is_accepting(state):
            self.fault("forced_bytes could be longer", text + b" | " + forced)
        return None

    def finished(self, order: str, text: bytes) -> None:
        """A text that an automaton ended is valid JSON, in order, and accepted however it is cut."""
        if (order, text) in self.ended:
            return None
        self.ended.add((order, text))
        try:
            value = loads(text)
        except ValueError as error:
            return self.fault("generated, but no JSON of ours", f"{text!r}: {error}")
        if self.judged(value) is False:
            return self.fault("generated, but invalid", f"{text!r}: {self.oracle.reason(value)}")
        for name, automaton in self.automata.items():
            if (name == "any" or order == "schema") and not self.accepts(automaton, text):
                self.fault(f"generated ({order}), but refused in other tokens ({name})", text)
        if order == "schema" and out_of_order(self.schema, value):
            self.fault("generated, but out of order", text)
        if self.rng.random() < 0.4:
            self.any_text(edited(text, self.rng))
        return None

    # -- values ---------------------------------------------------------------------------------------------------

    def values(self) -> Iterator[tuple[Any, bool | None]]:
        maker = ValueMaker(self.schema, self.rng)
        seen = set()
        for _ in range(self.n_values):
            value = maker.value()
            for one in (value, mutated(value, self.rng)):
                if frozen(one) not in seen:
                    seen.add(frozen(one))
                    yield one, self.judged(one)

    def accepts(self, automaton: Any, text: bytes) -> bool:
        ids = self.walkers.tokens.of(text, self.rng if self.rng.random() < 0.7 else None)
        accepted, state = automaton.accept_tokens(automaton.initial_state, ids)
        return accepted == len(ids) and automaton.is_accepting(state)

    def value(self, value: Any, verdict: bool | None) -> None:
        """A value in several spellings, in both orders."""
        rng = self.rng
        if verdict is None:
            return
        in_order, certain = ordered(self.schema, value)
        layout = rng.choice(list(LAYOUTS))
        texts = [(in_order, spelled(in_order, **LAYOUTS[layout])), (value, respelled(value, rng))]
        for one, text in texts:
            for order, automaton in self.automata.items():
                if verdict and order == "schema" and not (certain and list(_keys(one)) == list(_keys(in_order))):
                    continue
                accepted = self.accepts(automaton, text.encode("utf-8", "surrogatepass"))
                if accepted != verdict:
                    why = "" if verdict else f": {self.oracle.reason(value)}"
                    self.fault(f"{'valid, but refused' if verdict else 'invalid, but accepted'} ({order})", text + why)
        if rng.random() < 0.3:
            self.repeated_key(value)
        if verdict and rng.random() < 0.5:
            self.any_text(edited(texts[0][1].encode("utf-8", "surrogatepass"), rng))

    def any_text(self, text: bytes) -> None:
        """A text of unknown standing: whatever `loads` and the oracle make of it."""
        if re.search(rb"[ \t\r\n]{65}", text):
            return  # more whitespace in a row than `max_whitespace`
        try:
            verdict = self.judged(loads(text))
        except ValueError:
            verdict = False
            self.outcome.texts["invalid"] += 1
        if verdict is not None and self.accepts(self.automata["any"], text) != verdict:
            self.fault("valid, but refused (any)" if verdict else "invalid, but accepted (any)", text)

    def repeated_key(self, value: Any) -> None:
        """An object that lists a key twice, the second time with an escape, is refused."""
        if not isinstance(value, dict) or not value:
            return
        key = self.rng.choice(list(value))
        again = '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in key) + '"'
        text = spelled(value)[:-1] + f", {again}: {spelled(value[key])}}}"
        try:
            loads(text)
        except DuplicateKeyError:
            self.outcome.texts["invalid"] += 1
            for order, automaton in self.automata.items():
                if self.accepts(automaton, text.encode("utf-8", "surrogatepass")):
                    self.fault(f"a repeated key, but accepted ({order})", text)


def _keys(value: Any) -> Iterator[str]:
    """All keys in the order of the text."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def reproducer(seed: int, index: int, schema: Any, finding: Finding, options: str) -> str:
    """One line that says it all: behind ``scripts/json_report fuzz``, what was found, the schema."""
    shown = json.dumps(schema, ensure_ascii=False)
    return f"--seed {seed} --start {index} --schemas 1 {options} | {finding.kind} | {finding.detail!r} | {shown}"
