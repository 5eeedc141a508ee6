"""How a JSON text can be brought to its end from any state, in few bytes.

A *policy* chooses the next piece for every configuration: close what may be closed, else write what is required, each
value as the kind that takes the fewest bytes. It looks at nothing but the configuration, so the completions of a state
and of the states along its completion agree: whoever follows it gets nearer with every token. What it finds is a
shortest text where members and items do not depend on each other, and a short one otherwise.

Values may be recursive. The cost of a goal is a least fixed point, as in `Satisfiability`: a value that contains itself
is never the cheapest, so a question that comes up while it is being answered costs infinitely much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from outlines_core.errors import LimitExceededError
from outlines_core.json_schema.arena import FREE
from outlines_core.json_schema.formula import FALSE
from outlines_core.json_schema.machine import ARRAYS, OBJECTS, STRINGS, ArrayFrame, Frame, Goal, ObjectFrame, Return
from outlines_core.json_schema.shapes import bits_of
from outlines_core.json_tables import AFTER, NEXT, encoded
from outlines_core.kernels import json as kernel

if TYPE_CHECKING:
    from outlines_core.json_core import JsonCore, Records

__all__ = ["Closing"]

_INFINITE: Final = 1 << 40
_MAX_PIECES: Final = 200_000
_KEPT_BYTES: Final = 1 << 24
_EASY: Final = bytes(dict.fromkeys([*b'"0123456789abcdefghijklmnopqrstuvwxyz_n\\u', *range(256)]))
"""Bytes in the order in which they are tried where no better advice is at hand."""


class Closing:
    """Completions of the states of one core.  The caller holds the core's lock."""

    def __init__(self, core: JsonCore) -> None:
        self._core = core
        self._texts: dict[tuple[bytes, Records], bytes] = {}
        self._n_bytes = 0
        self._costs: dict[int, int] = {}
        self._asking: set[int] = set()
        self._assumed = False
        self._ranks: dict[int, list[tuple[int, int, int, str]]] = {}

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
        i, c, _, x, _ = config.tolist()
        kind = int(core.inst[i, kernel.I_KIND])
        if kind == kernel.STRUCT:
            return self._structural(core.info[i]) if core.consts[x, 4] else self._whitespace(x)
        if kind == kernel.PLAIN:
            if core.rows[c, kernel.OUTCOME] < 0:
                return self._content(c)[:1]
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

    def _structural(self, info: Any) -> bytes:
        match info:
            case ("value", goal):
                return self._begin(goal)
            case ("colon", _):
                return b":"
            case ("object", frame, point):
                if point != NEXT and frame.closing is not None:
                    return b"}"
                return b"," if point == AFTER else b'"'
            case ("array", frame, point):
                if point != NEXT and frame.closing is not None:
                    return b"]"
                made = self._core.machine.item(frame)
                assert made is not None
                return b"," if point == AFTER else self._begin(made.goal)
        raise AssertionError(info)

    def _content(self, c: int) -> bytes:
        """A shortest rest of a lexeme, from an arena row: the content, not its spelling."""
        arena = self._core.shared.arena
        owner = arena.owner(c)
        if owner is not None:
            text: bytes = owner[0].witness(owner[1])
            return text
        text = b""
        while arena.rows[c, kernel.OUTCOME] < 0:  # fixed rows: keywords, and characters that are cut off
            byte = int(np.flatnonzero(arena.rows[c, :256])[0])
            text += bytes((byte,))
            c = int(arena.rows[c, byte])
        return text

    # -- strings ----------------------------------------------------------------------------------------------------

    def _string(self, config: NDArray[np.int64], records: Records) -> bytes:
        core = self._core
        i, c, t, x, _ = config.tolist()
        stage = x >> 19 & 7
        if stage not in (0, kernel.RAW_ED):
            return self._first_live(config, records, _EASY)
        flags = int(core.inst[i, kernel.I_FLAGS])
        if t == -1:
            t = core.root(i)
        if t > 0 and (c == 0 or core.info[i][0] == "key"):
            rest = self._known_text(i, t)
            if rest is not None:
                return self._spelled(rest) + b'"'
        if stage == 0 and core.exactly(config, records, b'"') is not None:
            return b'"'
        if c == FREE:
            if flags & kernel.COUNTED and x >> 32 < core.inst[i, kernel.I_LEAST]:
                easy: bytes = next(bytes((b,)) for b in _EASY if core.consts[b, 1] and b not in b'"\\')
                missing = int(core.inst[i, kernel.I_LEAST]) - (x >> 32)
                return easy * int(missing)
            return self._first_live(config, records, _EASY)
        content = self._content(c)
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

    def _known_text(self, i: int, t: int) -> bytes | None:
        """What is left of the best known text below a trie node, None if none is allowed."""
        core = self._core
        low, high = core.nodes[t, 4:6].tolist()
        leaves = [leaf for leaf in range(low, high) if core.is_allowed(i, leaf)]
        if not leaves:
            return None
        texts = core.info[i][-1]
        if core.info[i][0] == "key":
            ranks = self._ranks_of(i)
            best = min(leaves, key=ranks.__getitem__)
        else:
            best = min(leaves, key=lambda leaf: (len(texts[leaf]), leaf))
        whole = encoded(texts[best])
        return whole[core.depth_of(i, t, whole) :]

    def _ranks_of(self, i: int) -> list[tuple[int, int, int, str]]:
        """Known keys by how much they help to close the object: smaller is better."""
        ranks = self._ranks.get(i)
        if ranks is None:
            info = self._core.info[i]
            frame, texts = info[1], info[-1]
            helpful = self._helpful(frame)
            closing = self._closing_keys(frame)
            ranks = self._ranks[i] = []
            for text in texts:
                k = frame.shape.number.get(text, -1)
                useful = k >= 0 and bool(helpful >> k & 1)
                ranks.append((int(k not in closing), int(not useful), len(text), text))
        return ranks

    def _helpful(self, frame: ObjectFrame) -> int:
        """The known keys that some part of what is left to fulfil requires, as bits."""
        formulas = self._core.machine.formulas
        keys = 0
        for f in frame.formulas:
            for atom in formulas.atoms(f):
                payload = formulas.payload(atom)
                if payload[0] == "r":
                    keys |= payload[1]
        return keys

    def _closing_keys(self, frame: ObjectFrame) -> set[int]:
        """Keys after whose value the object may end (where that is not plain, of the first few keys)."""
        machine = self._core.machine
        if frame.plain is not None:
            return set()
        found = set()
        for key in bits_of(machine.keys(frame)[0])[:64]:
            made = machine.member(frame, key)
            following = self._after(made) if made is not None else None
            if following is not None and following.closing is not None:
                found.add(key)
        return found

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
            text = self._content(int(core.inst[i, kernel.I_ROW]))
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
            return len(self._content(row))
        text = self._known_text(i, core.root(i))
        assert text is not None
        return len(text)

    def _after(self, made: Return) -> Frame | None:
        """A frame that a member or item can lead to: the one that is known without looking at values."""
        machine = self._core.machine
        if made.record:
            return None
        if made.goal.is_single:
            return machine.after(made, (True,))
        n = len(made.goal.watched)
        for _, value in made.goal.cubes:
            frame = machine.after(made, tuple(bool(value >> k & 1) for k in range(n)))
            if frame is not None:
                return frame
        return None

    def _array_cost(self, frame: ArrayFrame) -> int:
        """Bytes to the end of an array, the bracket included."""
        total = 0
        following: Frame | None = frame
        while isinstance(following, ArrayFrame) and following.closing is None:
            made = self._core.machine.item(following)
            if made is None:
                return _INFINITE
            total += self._cost(made.goal) + 1
            if total >= _INFINITE:
                return _INFINITE
            step = self._after(made)
            if step is following:
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
            keys = following.shape.keys
            made: Return | None
            if known:
                helpful = self._helpful(following)
                closing = self._closing_keys(following)
                key = min(bits_of(known), key=lambda k: (k not in closing, not helpful >> k & 1, len(keys[k]), keys[k]))
                made, length = machine.member(following, key), len(encoded(keys[key]))
            else:
                made, length = (machine.member(following, others[0]) if others else None), 0
            if made is None:
                return _INFINITE
            total += self._cost(made.goal) + length + 4
            if total >= _INFINITE:
                return _INFINITE
            following = self._after(made)
        return max(total, 1)
