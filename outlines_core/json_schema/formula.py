"""Boolean formulas over atoms, hash-consed: what a value still has to fulfil.

A formula is an int. TRUE is 1, FALSE is -1, and ``-f`` is the negation of ``f``, so negation costs nothing and equal
formulas are equal ints. What is left is three kinds of node: an atom, a conjunction and "exactly one of". A conjunction
is kept flat, sorted and free of contradictions; disjunctions are negated conjunctions.

Formulas are never brought into a normal form as a whole. `cubes` enumerates the disjunctive normal form lazily, unit
literals first, and whoever asks "can this be fulfilled?" stops at the first cube that can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from outlines_core.errors import LimitExceededError

__all__ = ["FALSE", "TRUE", "Cube", "Formula", "Formulas"]

Formula: TypeAlias = int
Cube: TypeAlias = dict[int, bool]
"""Atom -> must it hold?  A conjunction of literals."""

TRUE: Final = 1
FALSE: Final = -1
_ATOM, _AND, _ONE = 0, 1, 2
_MAX_CUBES: Final = 20_000


class Formulas:
    """The table of all formulas of one schema."""

    def __init__(self) -> None:
        self.kind: list[int] = [_ATOM, _ATOM]
        self.args: list[Any] = [None, None]
        self._table: dict[Any, int] = {}
        self._atoms: dict[int, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.kind)

    def _new(self, kind: int, args: Any) -> int:
        key = (kind, args)
        found = self._table.get(key)
        if found is None:
            found = self._table[key] = len(self.kind)
            self.kind.append(kind)
            self.args.append(args)
        return found

    # -- building ---------------------------------------------------------------------------------------------------

    def atom(self, payload: Any) -> Formula:
        """The formula of one (hashable) atom."""
        return self._new(_ATOM, payload)

    def all(self, parts: Iterable[Formula]) -> Formula:
        """All of `parts`."""
        flat: set[int] = set()
        for f in parts:
            if f == TRUE:
                continue
            if f == FALSE:
                return FALSE
            if f > 0 and self.kind[f] == _AND:
                flat.update(self.args[f])
            else:
                flat.add(f)
        if len(flat) < 2:
            return flat.pop() if flat else TRUE
        for f in flat:
            if -f in flat:
                return FALSE
        return self._new(_AND, tuple(sorted(flat)))

    def any(self, parts: Iterable[Formula]) -> Formula:
        """At least one of `parts`."""
        return -self.all([-f for f in parts])

    def one(self, parts: Iterable[Formula]) -> Formula:
        """Exactly one of `parts` (a formula that occurs twice counts twice)."""
        counts: dict[int, int] = {}
        certain = 0
        for f in parts:
            if f == TRUE:
                certain += 1
            elif f != FALSE:
                counts[f] = counts.get(f, 0) + 1
        twice = [-f for f, n in counts.items() if n > 1]
        single = sorted(f for f, n in counts.items() if n == 1)
        for f in single:
            if f > 0 and -f in counts and counts[-f] == 1:  # one of the two holds in any case
                certain += 1
                single = [g for g in single if abs(g) != f]
        if certain > 1:
            return FALSE
        if certain == 1:
            return self.all([*twice, *(-f for f in single)])
        if len(single) < 2:
            return self.all([*twice, single[0] if single else FALSE])
        return self.all([*twice, self._new(_ONE, tuple(single))])

    # -- reading ----------------------------------------------------------------------------------------------------

    def payload(self, atom: int) -> Any:
        """What an atom says."""
        return self.args[atom]

    def conjuncts(self, f: Formula) -> tuple[Formula, ...]:
        """The parts of a conjunction; anything else is its only part; TRUE has none."""
        if f > 1 and self.kind[f] == _AND:
            parts: tuple[int, ...] = self.args[f]
            return parts
        return () if f == TRUE else (f,)

    def is_atom(self, f: Formula) -> bool:
        return f > 1 and self.kind[f] == _ATOM

    def atoms(self, f: Formula) -> tuple[int, ...]:
        """All atoms in `f`, each once, in order of first mention."""
        f = abs(f)
        if f == 1:
            return ()
        if self.kind[f] == _ATOM:
            return (f,)
        known = self._atoms.get(f)
        if known is None:
            seen: dict[int, None] = {}
            for part in self.args[f]:
                seen.update(dict.fromkeys(self.atoms(part)))
            known = self._atoms[f] = tuple(seen)
        return known

    def substitute(self, f: Formula, replace: Callable[[int], Formula], memo: dict[int, Formula]) -> Formula:
        """`f` with every atom replaced; `memo` belongs to this `replace`."""
        g = f if f > 0 else -f
        if g == 1:
            return f
        found = memo.get(g)
        if found is None:
            kind = self.kind[g]
            if kind == _ATOM:
                found = replace(g)
            else:
                parts = [self.substitute(part, replace, memo) for part in self.args[g]]
                found = self.all(parts) if kind == _AND else self.one(parts)
            memo[g] = found
        return found if f > 0 else -found

    def holds(self, f: Formula, truth: Callable[[int], bool]) -> bool:
        """The truth of `f` where every atom has one."""
        if f < 0:
            return not self.holds(-f, truth)
        if f == TRUE:
            return True
        kind = self.kind[f]
        if kind == _ATOM:
            return truth(f)
        if kind == _AND:
            return all(self.holds(part, truth) for part in self.args[f])
        return sum(self.holds(part, truth) for part in self.args[f]) == 1

    # -- disjunctive normal form ------------------------------------------------------------------------------------

    def cubes(self, f: Formula) -> Iterator[Cube]:
        """Cubes whose disjunction is `f`, one after the other.

        Raises LimitExceededError past 20,000 of them.
        """
        for n, cube in enumerate(self._cubes([f], {}, []), start=1):
            if n > _MAX_CUBES:
                raise LimitExceededError(
                    f"the schema has more than {_MAX_CUBES:,} alternatives at one place", given=n, limit=_MAX_CUBES
                )
            yield cube

    def most_cubes(self, f: Formula) -> int:
        """A rough upper bound of the number of cubes: alternatives of the top conjunction multiplied."""
        n = 1
        for part in self.conjuncts(f):
            if not self.is_atom(abs(part)):
                n *= len(self.args[abs(part)])
        return n

    def _alternatives(self, f: Formula) -> list[list[Formula]]:
        """Conjunctions of which at least one holds iff `f` does; `f` is no literal and no conjunction."""
        if f < 0 and self.kind[-f] == _AND:
            return [[-part] for part in self.args[-f]]
        parts = self.args[abs(f)]
        if f > 0:
            return [[part, *(-other for other in parts if other != part)] for part in parts]
        none = [[-part for part in parts]]
        return none + [[a, b] for i, a in enumerate(parts) for b in parts[i + 1 :]]

    def _cubes(self, pending: list[Formula], lits: Cube, branches: list[Formula]) -> Iterator[Cube]:
        while True:
            while pending:
                f = pending.pop()
                g = f if f > 0 else -f
                if g == 1:
                    if f == FALSE:
                        return
                elif self.kind[g] == _ATOM:
                    if lits.setdefault(g, f > 0) != (f > 0):
                        return
                elif f > 0 and self.kind[g] == _AND:
                    pending.extend(self.args[g])
                else:
                    branches.append(f)
            best: list[list[Formula]] | None = None
            chosen = -1
            open_branches: list[Formula] = []
            for f in branches:
                alternatives = []
                for option in self._alternatives(f):
                    values = [self._known(part, lits) for part in option]
                    if all(v is True for v in values):
                        break  # holds already
                    if not any(v is False for v in values):
                        alternatives.append([part for part, v in zip(option, values, strict=True) if v is None])
                else:
                    if best is None or len(alternatives) < len(best):
                        best, chosen = alternatives, len(open_branches)
                    open_branches.append(f)
            if best is None:
                yield lits
                return
            branches = open_branches
            del branches[chosen]
            if len(best) == 1:
                pending = best[0]
                continue
            for option in best:
                yield from self._cubes(option, dict(lits), list(branches))
            return

    def _known(self, f: Formula, lits: Cube) -> bool | None:
        g = f if f > 0 else -f
        if g == 1:
            return f == TRUE
        if self.kind[g] == _ATOM:
            value = lits.get(g)
            return None if value is None else value == (f > 0)
        return None
