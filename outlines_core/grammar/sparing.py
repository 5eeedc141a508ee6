"""Can the parser be satisfied where some terminals will not be read any more, whatever is on its stack?

Where `//` was read as two operators, no line may end behind it up to the end of the text: it would have been a comment.
A grammar in which lines can also end in `;` can do without newlines from there on. So a set of *spared* terminals is
looked for such that all others can be read from a boundary, and the separator behind each, and so on for ever: these
claims about boundaries support each other (a greatest fixpoint). What cannot be read somewhere is spared; then
`viability` must prove that all stacks can do without.

The other way round, an obligation may never be lifted again and shut out some bytes for good. If each text must end in
a terminal that needs these, only what can end at once is live.
"""

from __future__ import annotations

from typing import Final

from outlines_core.grammar.loading import END
from outlines_core.grammar.ordered import Obligations, behind_lead
from outlines_core.grammar.separation import Separation
from outlines_core.grammar.stored import stored_proof
from outlines_core.grammar.viability import all_stacks_live
from outlines_core.grammar.worlds import Boundary

__all__ = ["Sparing"]

_MOST_CLAIMS: Final = 20  # for each lexer
_MOST_SPARED: Final = 8
_MOST_TRAPPED: Final = 64
_BETWEEN: Final = 0, 255, -1  # characters: the range of the next byte, how many of the character come behind it
_WITHIN: Final = _BETWEEN, (0x80, 0xBF, 0), (0x80, 0xBF, 1)
_Claim = tuple[int, Boundary, bool]
"""Lexer and boundary; was what absorbs the separator just read?"""


class Sparing:
    """Answers for boundaries behind terminals; not where there is an indenter.

    Args:
        separation: it must hold.
    """

    def __init__(self, separation: Separation) -> None:
        self._separation = separation
        self._machine, self._grammar = separation.machine, separation.machine.grammar
        self._known: dict[_Claim, bool] = {}
        self._claims: dict[int, set[_Claim]] = {}  # by the spared ones, as bits: claims that hold
        self._spared: dict[int, bool] = {0: True}
        self._over: dict[Obligations, bool] = {}

    def is_good(self, lexer: int, boundary: Boundary, terminal: int) -> bool:
        """Can every stack be satisfied that this terminal, with this boundary behind it, has led to?"""
        if self._machine.indentation is not None:
            return False
        claim = lexer, boundary, self._separation.absorbs(terminal)
        known = self._known.get(claim)
        if known is None:
            known = self._known[claim] = self._is_good(claim)
        return known

    def _is_good(self, claim: _Claim) -> bool:
        first = self._support(claim[0], claim[1], is_absorbing=claim[2], claims=set())
        if first is None:
            return False
        spared = 0
        while spared.bit_count() <= _MOST_SPARED:
            claims = {first}
            missing = self._missing(claims, spared)
            if missing is None:
                return False
            if not missing:
                if not self._all_can_spare(spared):
                    return False
                self._claims.setdefault(spared, set()).update(claims)
                return True
            spared |= missing
        return False

    def _missing(self, claims: set[_Claim], spared: int) -> int | None:
        """The terminals, as bits, that one of the claims finds unreadable; if there are none, all claims hold.

        Claims are added by which others hold. None: there are too many.
        """
        separation = self._separation
        sure = self._claims.get(spared, set())
        todo = [claim for claim in claims if claim not in sure]
        while todo:
            lexer, boundary, is_absorbed = todo.pop(0)
            missing = 0
            for terminal in separation.expected(lexer):
                is_absorbing = separation.absorbs(terminal)
                if spared >> terminal & 1 or (is_absorbed and is_absorbing):
                    continue
                for behind in separation.ways(lexer, boundary, terminal):
                    needed = [
                        self._support(following, behind, is_absorbing=is_absorbing, claims=claims)
                        for following in sorted(separation.lexers_behind(terminal))
                    ]
                    if None not in needed:
                        new = {one for one in needed if one is not None} - claims - sure
                        claims |= new
                        todo += sorted(new, key=repr)
                        break
                else:
                    missing |= 1 << terminal
            if missing:
                return missing
            if len(claims) > _MOST_CLAIMS * len(self._grammar.lexers):
                return None
        return 0

    def _support(self, lexer: int, boundary: Boundary, *, is_absorbing: bool, claims: set[_Claim]) -> _Claim | None:
        """A claim from which it follows that the parser can be satisfied; None: there is none."""
        gap = self._separation.gap(lexer, boundary)
        found: list[_Claim] = [(lexer, behind, False) for behind in gap]
        if is_absorbing and self._machine.dfa.hold_at_end(boundary.obligations):
            found.append((lexer, boundary, True))
        return next((one for one in found if one in claims), found[0] if found else None)

    def _all_can_spare(self, spared: int) -> bool:
        known = self._spared.get(spared)
        if known is None:
            tables = self._grammar.tables
            assert tables is not None
            unreadable = self._separation.unreadable()
            every = {state: unreadable.get(state, 0) | spared for state in range(len(tables.actions))}
            known = self._spared[spared] = stored_proof(
                self._grammar, every, lambda: all_stacks_live(self._grammar, every)
            )
        return known

    # -- what is over -----------------------------------------------------------------------------------------------

    def is_over(self, boundary: Boundary) -> bool:
        """Is no text live but one that can end at once?  False: perhaps another one is."""
        known = self._over.get(boundary.obligations)
        if known is None:
            dfa = self._machine.dfa
            known = self._over[boundary.obligations] = (
                self._machine.indentation is None
                and dfa.hold_at_end(boundary.obligations)
                and any(self._is_over(frozenset((one,))) for one in boundary.obligations if one < 0)
            )
        return known

    def _is_over(self, obligation: Obligations) -> bool:
        left = self._bytes_left(obligation)
        tables = self._grammar.tables
        assert tables is not None
        if left is None:
            return False
        last = {
            t for row in tables.actions for t, action in row.items() if action >= 0 and END in tables.actions[action]
        }
        return not any(self._machine.dfa.may_match(terminal, left) for terminal in sorted(last))

    def _bytes_left(self, obligation: Obligations) -> frozenset[int] | None:
        """The classes of bytes that can still come; None: all, or the obligation may be lifted.

        Where characters are read one by one; bytes that belong to no character may stand for something else.
        """
        dfa = self._machine.dfa
        read = [byte for byte, is_read in enumerate(dfa.bytes_read()) if is_read]
        first = obligation, _BETWEEN
        seen, todo = {first}, [first]
        left: set[int] = set()
        while todo:
            at, (low, high, more) = todo.pop()
            steps = {
                (dfa.class_of[byte], _behind(byte) if more < 0 else _WITHIN[more]): byte
                for byte in read
                if low <= byte <= high and (more >= 0 or not 0x80 <= byte < 0xC2)
            }
            for (klass, place), byte in steps.items():
                ways = dfa.after_byte(at, byte)
                if ways:
                    left.add(klass)
                for way in ways:
                    if not any(x < 0 for x in way) or len(seen) > _MOST_TRAPPED:
                        return None
                    if (way, place) not in seen:
                        seen.add((way, place))
                        todo.append((way, place))
        return frozenset(left) if len(left) < dfa.n_classes else None


def _behind(byte: int) -> tuple[int, int, int]:
    """The same behind the first byte of a character."""
    return behind_lead(byte) if 0xC2 <= byte <= 0xF4 else _BETWEEN
