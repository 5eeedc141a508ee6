"""How a JSON text can be brought to its end from any state, in few bytes.

A *policy* chooses the next piece for every configuration: close what may be closed, else write what is required, each
value as the kind that takes the fewest bytes. It looks at nothing but the configuration, so the completions of a state
and of the states along its completion agree: whoever follows it gets nearer with every token. What it finds is a
shortest text where members and items do not depend on each other, and a short one otherwise.

Where a value may end with several outcomes (does this item count for `contains`?), the container around it *demands*
the one after which least is left to do; a demand on a container is passed on to its members in the same way.

Values may be recursive. The cost of a goal is a least fixed point, as in `Satisfiability`: a value that contains itself
is never the cheapest, so a question that comes up while it is being answered costs infinitely much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.formula import FALSE, TRUE, Formula
from outlines_core.json_schema.lexemes import ONLY, Cubes
from outlines_core.json_schema.machine import (
    ARRAYS,
    NUMBERS,
    OBJECTS,
    STRINGS,
    ArrayFrame,
    Frame,
    Goal,
    ObjectFrame,
    Outcome,
    Return,
)
from outlines_core.json_schema.shapes import bits_of
from outlines_core.json_tables import AFTER, NEXT, encoded
from outlines_core.kernels import json as kernel
from outlines_core.kernels.json_memory import FREE

if TYPE_CHECKING:
    from outlines_core.json_core import JsonCore
    from outlines_core.json_states import Records

__all__ = ["Closing"]

_INFINITE: Final = 1 << 40
_MAX_PIECES: Final = 50_000
_MAX_FREE: Final = 4
_MAX_ROWS: Final = 2000
_KEPT_BYTES: Final = 1 << 24
_EASY: Final = bytes(dict.fromkeys([*b'"0123456789abcdefghijklmnopqrstuvwxyz_n\\u', *range(256)]))
"""Bytes in the order in which they are tried where no better advice is at hand."""


class Closing:
    """Completions of the states of one core, to which it belongs.  The caller holds the core's lock."""

    def __init__(self, core: JsonCore) -> None:
        self._owner = ref(core)
        self._texts: dict[tuple[bytes, Records], bytes] = {}
        self._n_bytes = 0
        self._costs: dict[int, int] = {}
        self._asking: set[int] = set()
        self._assumed = False
        self._ranks: dict[int, dict[int, tuple[Any, ...]]] = {}
        self._classes: dict[int, tuple[tuple[int, int, int], tuple[int, ...]] | None] = {}
        self._demands: dict[int, Outcome | None] = {0: None}
        self._choices: dict[tuple[int, Outcome | None], Outcome | None] = {}

    @property
    def _core(self) -> JsonCore:
        core = self._owner()
        assert core is not None
        return core

    # -- texts ------------------------------------------------------------------------------------------------------

    def completion(self, config: NDArray[np.int64], records: Records) -> bytes:
        """A short text that leads from a live configuration to an accepting one.

        Raises:
            LimitExceededError: it is extremely long.
        """
        pieces: list[tuple[tuple[bytes, Records], bytes]] = []
        core = self._core
        while True:
            key = (config.tobytes(), records)
            rest = b"" if core.is_end(config) else self._texts.get(key)
            if rest is not None:
                break
            piece = self._piece(config, records)
            pieces.append((key, piece))
            if len(pieces) > _MAX_PIECES:
                raise LimitExceededError(
                    "the shortest completion of the text is too long", given=len(pieces), limit=_MAX_PIECES
                )
            result = core.exactly(config, records, piece)
            assert result is not None, (config, piece)
            config, records = result
        text: bytes = rest
        for key, piece in reversed(pieces):
            text = piece + text
            if len(text) < 4096 or key is pieces[0][0]:
                self._texts[key] = text
                self._n_bytes += len(text) + 200
        if self._n_bytes > _KEPT_BYTES:
            self._texts.clear()
            self._n_bytes = 0
        return text

    def _piece(self, config: NDArray[np.int64], records: Records) -> bytes:
        core = self._core
        i, c, _, x, sid = config.tolist()
        kind = int(core.inst[i, kernel.I_KIND])
        if kind == kernel.STRUCT:
            return self._structural(core.info(i), sid) if core.consts[x, 4] else self._whitespace(x)
        if kind == kernel.PLAIN:
            rest = self._content(c, i, sid)
            if rest:
                return rest[:1]
            if not core.consts[kernel.WS + 1, 4]:
                return self._whitespace(kernel.WS + 1)
            return self._first_live(config, records, b"]},")
        return self._string(config, records)

    def _first_live(self, config: NDArray[np.int64], records: Records, order: Iterable[int]) -> bytes:
        for byte in order:
            if self._core.exactly(config, records, bytes((byte,))) is not None:
                return bytes((byte,))
        raise AssertionError(f"a dead end: {config}")

    def _whitespace(self, x: int) -> bytes:
        """The fewest whitespace characters that lead from state `x` to one at which the whitespace may end."""
        consts = self._core.consts
        layer, seen = [(x, b"")], {x}
        while layer:
            following = []
            for state, text in layer:
                if consts[state, 4]:
                    return text
                for klass, byte in enumerate(b" \t\n\r"):
                    target = int(consts[state, klass])
                    if target and target not in seen:
                        seen.add(target)
                        following.append((target, text + bytes((byte,))))
            layer = following
        raise AssertionError("whitespace without an end")

    def _structural(self, info: Any, sid: int) -> bytes:
        machine = self._core.machine
        match info:
            case ("value", goal):
                return self._begin(self._narrowed(goal, self._demand(sid)))
            case ("colon" | "member", _):
                return b":"
            case ("object", frame, point):
                frame = self._wanted(frame, sid)
                if point != NEXT and frame.closing is not None:
                    return b"}"
                return b"," if point == AFTER else b'"'
            case ("array", frame, point):
                wanted = self._wanted(frame, sid)
                if point != NEXT and wanted.closing is not None:
                    return b"]"
                if point == AFTER:
                    return b","
                made = machine.item(frame)
                assert made is not None
                return self._begin(self._narrowed(made.goal, self._choice(made, self._demand(sid))))
        raise AssertionError(info)

    # -- demands ----------------------------------------------------------------------------------------------------

    def _demand(self, sid: int) -> Outcome | None:
        """The outcome that the value which is being written should end with; None: any that is good."""
        chain = []
        while sid and sid not in self._demands:
            chain.append(sid)
            sid = int(self._core.stack[sid, 1])
        demand = self._demands[sid]
        for at in reversed(chain):
            made = self._core.return_of(int(self._core.stack[at, 0]) >> 1)
            demand = self._demands[at] = self._choice(made, demand)
        return demand

    def _choice(self, made: Return, demand: Outcome | None) -> Outcome | None:
        """The outcome of a child after which its container has least to do to end as demanded."""
        goal = made.goal
        if goal.is_single:
            return None
        key = (made.id, demand)
        if key not in self._choices:
            n = len(goal.watched)
            free = [k for k in range(n) if any(not care >> k & 1 for care, _ in goal.cubes)][:_MAX_FREE]
            values = {value for _, value in goal.cubes}
            for k in free:
                values |= {value ^ 1 << k for value in values}
            best: tuple[Any, Outcome] | None = None
            for value in sorted(values):
                outcome = tuple(bool(value >> k & 1) for k in range(n))
                if not goal.is_good(outcome) or not self._core.machine.is_alive(self._narrowed(goal, outcome)):
                    continue
                frame = self._after(made, outcome, demand)
                if frame is not None:
                    rank = (frame.closing is None, self._measure(frame), self._cost(self._narrowed(goal, outcome)))
                    if best is None or rank < best[0]:
                        best = rank, outcome
            self._choices[key] = best[1] if best is not None else None
        return self._choices[key]

    def _narrowed(self, goal: Goal, outcome: Outcome | None) -> Goal:
        """The goal of ending with just this outcome."""
        if outcome is None or goal.is_single:
            return goal
        return self._core.machine.goal(goal.watched, _only(outcome), goal.place)

    def _wanted(self, frame: Any, sid: int) -> Any:
        """The frame that has to end as demanded, if it still can."""
        if frame.cubes == ONLY and len(frame.formulas) == 1:
            return frame
        demand = self._demand(sid)
        return frame if demand is None else self._restricted(frame, demand) or frame

    def _restricted(self, frame: Frame, demand: Outcome) -> Frame | None:
        machine = self._core.machine
        cubes = _only(demand)
        if isinstance(frame, ArrayFrame):
            return machine.array(frame.formulas, cubes, frame.place)
        return machine.object_at(frame.shape, frame.formulas, cubes, frame.blocked, frame.seen, frame.place)

    def _after(self, made: Return, outcome: Outcome, demand: Outcome | None) -> Frame | None:
        """The frame behind a child, restricted to what is demanded of it; items that must differ are taken to do so."""
        machine = self._core.machine
        frame: Frame | None
        if made.record:
            formulas = machine.formulas
            truth = made.settled if made.settled is not None else dict(zip(made.ts, outcome, strict=True))

            def replace(atom: int) -> Formula:
                if atom in truth:
                    return TRUE if truth[atom] else FALSE
                return TRUE if formulas.payload(atom)[0] == "U?" else atom

            memo: dict[int, Formula] = {}
            left = tuple(formulas.substitute(f, replace, memo) for f in made.formulas)
            frame = machine.array(left, made.cubes, made.place)
        else:
            frame = machine.after(made, outcome)
        if frame is None or demand is None or (frame.cubes == ONLY and len(frame.formulas) == 1):
            return frame
        return self._restricted(frame, demand)

    def _measure(self, frame: Frame) -> int:
        """Roughly how much is left to do: required keys, least counts."""
        formulas = self._core.machine.formulas
        atoms = {atom for f in formulas.conjuncts(frame.goal) for atom in formulas.atoms(f)}
        total = 0
        for payload in map(formulas.payload, atoms):
            if payload[0] == "r":
                total += payload[1].bit_count()
            elif payload[0] in ("C", "K"):
                total += payload[-2]
        return total

    def _content(self, c: int, i: int, sid: int) -> bytes:
        """A shortest rest of a lexeme, from an arena row: the content, not its spelling."""
        core = self._core
        arena = core.shared.arena
        owner = arena.owner(c)
        if owner is not None:
            info = core.info(i)
            if info[0] in ("number", "recognized") and not info[1].is_single:
                demand = self._demand(sid)
                text = None if demand is None else self._content_for(c, info, demand)
                if text is not None:
                    return text
            witness: bytes = owner[0].witness(owner[1])
            return witness
        text = b""
        while arena.rows[c, kernel.OUTCOME] < 0:  # fixed rows: keywords, and characters that are cut off
            byte = int(np.flatnonzero(arena.rows[c, :256])[0])
            text += bytes((byte,))
            c = int(arena.rows[c, byte])
        return text

    def _content_for(self, c: int, info: Any, demand: Outcome) -> bytes | None:
        """A shortest rest of a lexeme that ends as demanded, if it is near."""
        machine = self._core.machine
        _, goal, recognizer, tests = info[:4]
        which = NUMBERS if info[0] == "number" else STRINGS
        return self._search(c, recognizer, lambda bits: machine.outcome(goal, which, tests, bits) == demand)

    def _search(self, c: int, recognizer: Any, is_wanted: Callable[[int], bool]) -> bytes | None:
        """A shortest rest of a lexeme at whose end the tests say what is wanted: breadth first, not too far."""
        arena = self._core.shared.arena
        layer, seen = [(c, b"")], {c}
        while layer and len(seen) < _MAX_ROWS:
            following = []
            for row, text in layer:
                number = int(arena.rows[row, kernel.OUTCOME])
                if number >= 0 and is_wanted(arena.outcome(recognizer, number)):
                    return text
                if not arena.rows[row, kernel.FILLED]:
                    arena.fill(row)
                for byte in np.flatnonzero(arena.rows[row, :256]).tolist():
                    target = int(arena.rows[row, byte])
                    if target not in seen:
                        seen.add(target)
                        following.append((target, text + bytes((byte,))))
            layer = following
        return None

    # -- strings ----------------------------------------------------------------------------------------------------

    def _string(self, config: NDArray[np.int64], records: Records) -> bytes:
        core = self._core
        i, c, t, x, sid = config.tolist()
        stage = x >> 19 & 7
        if stage not in (0, kernel.RAW_ED):
            return self._first_live(config, records, _EASY)
        flags = int(core.inst[i, kernel.I_FLAGS])
        if t == -1:
            t = core.root(i)
        if t > 0 and (c == 0 or core.info(i)[0] == "key"):
            rest = self._known_text(i, c, t, sid)
            if rest is not None:
                return self._spelled(rest) + b'"'
        content = b"" if c == FREE else self._content(c, i, sid) if core.info(i)[0] != "key" else self._key(c, i, sid)
        if stage == 0 and not content and core.exactly(config, records, b'"') is not None:
            return b'"'
        if c == FREE:
            if flags & kernel.COUNTED and x >> 32 < core.inst[i, kernel.I_LEAST]:
                easy: bytes = next(bytes((b,)) for b in _EASY if core.consts[b, 1] and b not in b'"\\')
                missing = int(core.inst[i, kernel.I_LEAST]) - (x >> 32)
                return easy * int(missing)
            return self._first_live(config, records, _EASY)
        if not content or stage:  # it could end, but may not here
            return self._first_live(config, records, _EASY)
        if 0x80 <= content[0] < 0xC0:
            return bytes(content[:1])
        length = 1 if content[0] < 0x80 else 2 if content[0] < 0xE0 else 3 if content[0] < 0xF0 else 4
        return self._spelled(content[:length])

    def _spelled(self, content: bytes) -> bytes:
        """How content may stand in a string; it may begin within a character."""
        usable = self._core.consts
        begin = next((k for k, byte in enumerate(content) if not 0x80 <= byte < 0xC0), len(content))
        spelled = bytearray(content[:begin])
        for char in content[begin:].decode("utf-8", "surrogatepass"):
            raw = encoded(char)
            if char in '"\\' or "\ud800" <= char <= "\udfff" or not all(usable[byte, 1] for byte in raw):
                units = char.encode("utf-16-be", "surrogatepass")
                raw = b"".join(b"\\u%02x%02x" % (units[k], units[k + 1]) for k in range(0, len(units), 2))
            spelled += raw
        return bytes(spelled)

    def _key(self, c: int, i: int, sid: int) -> bytes:
        """A rest of a key that is none of the known ones: of the class that helps most to close the object."""
        _, frame, recognizer = self._core.info(i)[:3]
        wanted = None if recognizer is None else self._best_class(self._wanted(frame, sid))
        if wanted is not None:
            rest = self._search(c, recognizer, lambda bits: all(bits >> k & 1 == v for k, v in enumerate(wanted)))
            if rest is not None:
                return rest
        return self._content(c, i, sid)

    def _best_class(self, frame: ObjectFrame) -> tuple[int, ...] | None:
        """The class of unknown keys after which least is left to do."""
        if frame.id not in self._classes:
            ranked = [
                (self._rank(self._core.machine.member(frame, c), 0), c) for c in self._core.machine.keys(frame)[1]
            ]
            self._classes[frame.id] = min(ranked) if ranked else None
        best = self._classes[frame.id]
        return best[1] if best is not None else None

    def _class_helps_more(self, frame: ObjectFrame, k: int) -> bool:
        """Does some unknown key help more than the known key `k`?"""
        if frame.plain is not None or self._best_class(frame) is None:
            return False
        best = self._classes[frame.id]
        return best is not None and best[0][:2] < self._key_rank(frame, k)[:2]

    def _rank(self, made: Return | None, length: int) -> tuple[int, int, int]:
        """A member by how much it helps to close the object: smaller is better."""
        following = None
        if made is not None:
            outcome = (True,) if made.goal.is_single else self._choice(made, None)
            following = self._after(made, outcome, None) if outcome is not None else None
        if following is None:
            return (2, 0, length)
        return (int(following.closing is None), self._measure(following), length)

    def _known_text(self, i: int, c: int, t: int, sid: int) -> bytes | None:
        """What is left of the best known text below a trie node, None if none is allowed."""
        core = self._core
        info = core.info(i)
        texts = info[-1]
        low, high = core.nodes[t, 4:6].tolist()
        leaves = [leaf for leaf in range(low, high) if core.is_allowed(i, leaf)]
        if not leaves:
            return None
        if info[0] == "key":
            wanted = self._wanted(info[1], sid)
            best = min(leaves, key=lambda leaf: self._key_rank(wanted, wanted.shape.number[texts[leaf]]))
            if self._class_helps_more(wanted, wanted.shape.number[texts[best]]) and c != 0:
                return None
        else:
            demand = self._demand(sid)
            if demand is not None:
                number = core.outcome_number(demand)
                leaves = [leaf for leaf in leaves if core.outcome_of_leaf(i, leaf) == number] or leaves
            best = min(leaves, key=lambda leaf: (len(texts[leaf]), leaf))
        whole = encoded(texts[best])
        return whole[core.depth_of(i, t, whole) :]

    def _key_rank(self, frame: ObjectFrame, k: int) -> tuple[Any, ...]:
        """A known key by how much it helps to close the object: smaller is better."""
        name = frame.shape.keys[k]
        if frame.plain is not None:
            return (not frame.plain.required >> k & 1, len(name), name)
        ranks = self._ranks.setdefault(frame.id, {})
        rank = ranks.get(k)
        if rank is None:
            rank = ranks[k] = (*self._rank(self._core.machine.member(frame, k), len(name)), name)
        return rank

    # -- values -----------------------------------------------------------------------------------------------------

    def _begin(self, goal: Goal) -> bytes:
        """The first byte of the cheapest value."""
        return min(self._options(goal))[2]

    def _options(self, goal: Goal) -> list[tuple[int, int, bytes]]:
        """Costs of the kinds of values that fulfil a goal: (bytes, rank, first byte)."""
        core, machine = self._core, self._core.machine
        found = []
        for rank, (bit, word) in enumerate(((1, b"null"), (4, b"true"), (2, b"false"))):
            if machine.constant(goal, bit) is not None:
                found.append((len(word), rank, word[:1]))
        strings = machine.part(goal, STRINGS)
        if strings != FALSE:
            i = core.string_instance(goal, strings)
            if i:
                found.append((2 + self._string_cost(i), 3, b'"'))
        i = core.number_instance(goal)
        if i:
            text = self._content(int(core.inst[i, kernel.I_ROW]), i, 0)
            found.append((len(text), 4, text[:1]))
        if min(found, default=(_INFINITE,))[0] > 2:
            if machine.part(goal, ARRAYS) != FALSE:
                array = machine.open_array(goal)
                if array is not None:
                    found.append((1 + self._array_cost(array), 5, b"["))
            if machine.part(goal, OBJECTS) != FALSE and min(found, default=(_INFINITE,))[0] > 2:
                members = machine.open_object(goal)
                if members is not None:
                    found.append((1 + self._object_cost(members), 6, b"{"))
        return found

    def _cost(self, goal: Goal) -> int:
        """The bytes of the cheapest value."""
        known = self._costs.get(goal.id)
        if known is not None:
            return known
        if goal.id in self._asking:
            self._assumed = True
            return _INFINITE
        outermost = not self._asking
        before, self._assumed = self._assumed, False
        self._asking.add(goal.id)
        try:
            cost = min(self._options(goal), default=(_INFINITE,))[0]
        finally:
            self._asking.discard(goal.id)
            relied, self._assumed = self._assumed, before
        if outermost or not relied:
            self._costs[goal.id] = cost
        else:
            self._assumed = True
        return cost

    def _string_cost(self, i: int) -> int:
        core = self._core
        row = int(core.inst[i, kernel.I_ROW])
        if row == FREE:
            return int(core.inst[i, kernel.I_LEAST])
        if row:
            return max(len(self._content(row, i, 0)), int(core.inst[i, kernel.I_LEAST]))
        text = self._known_text(i, 0, core.root(i), 0)
        assert text is not None
        return len(text)

    def _array_cost(self, frame: ArrayFrame) -> int:
        """Bytes to the end of an array, the bracket included."""
        total = 0
        following: Frame | None = frame
        while isinstance(following, ArrayFrame) and following.closing is None:
            made = self._core.machine.item(following)
            if made is None:
                return _INFINITE
            outcome = (True,) if made.goal.is_single else self._choice(made, None)
            if outcome is None:
                return _INFINITE
            total += self._cost(self._narrowed(made.goal, outcome)) + 1
            step = self._after(made, outcome, None)
            if step is following or total >= _INFINITE:
                return _INFINITE
            following = step
        return max(total, 1)

    def _object_cost(self, frame: ObjectFrame) -> int:
        """Bytes to the end of an object, the brace included."""
        machine = self._core.machine
        total = 0
        following: Frame | None = frame
        while isinstance(following, ObjectFrame) and following.closing is None:
            known, others = machine.keys(following)
            made: Return | None
            if known:
                at = following
                key = min(bits_of(known), key=lambda k: self._key_rank(at, k))
                made, length = machine.member(following, key), len(encoded(following.shape.keys[key]))
            else:
                best = self._best_class(following) if others else None
                made, length = (machine.member(following, best) if best is not None else None), 0
            if made is None:
                return _INFINITE
            outcome = (True,) if made.goal.is_single else self._choice(made, None)
            if outcome is None:
                return _INFINITE
            total += self._cost(self._narrowed(made.goal, outcome)) + length + 4
            if total >= _INFINITE:
                return _INFINITE
            following = self._after(made, outcome, None)
        return max(total, 1)


def _only(outcome: Outcome) -> Cubes:
    full = (1 << len(outcome)) - 1
    return ((full, sum(1 << k for k, holds in enumerate(outcome) if holds)),)
