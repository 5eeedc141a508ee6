"""What all states of one object have in common: the keys it knows, their order, and what each asks of its value.

While an object is read, its formula loses atoms but never gains any, so the known keys are settled when it begins.
Sets of known keys are ints used as bit sets.

*Order.* With ``property_order="schema"`` the keys that one `properties` lists keep that order, and keys that no
`properties` lists come last. Lists of different subschemas that contradict each other bind nobody: the precedences form
a graph, and those inside one of its strongly connected components are dropped. What is left has no cycle, so any set of
keys that are not yet ruled out can still be written in some order, and liveness need not think about order.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from outlines_core.json_schema.splits import Props

if TYPE_CHECKING:
    from outlines_core.json_schema.lexemes import Lexemes
    from outlines_core.json_schema.lower import Lowering, Sub

__all__ = ["NOBODY", "Key", "ObjectShape", "Seen", "bits_of", "encoded", "named"]

Key = int | tuple[int, ...]
"""A known key by its number, or the class of another one: what the key tests say about it."""
Seen: TypeAlias = frozenset[str | tuple[int, ...]]
"""Other keys that an object has; a tuple: what the key tests say of one whose name is not known here."""
_MANY: Final = 64


def bits_of(bits: int) -> list[int]:
    """The numbers of the set bits."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def encoded(text: str) -> bytes:
    """UTF-8, surrogates too."""
    return text.encode("utf-8", "surrogatepass")


class ObjectShape:
    """Known keys and key tests of an object whose formula consists of `atoms`.

    What does not change is in tuples: where they hold numbers and texts only, the garbage collector forgets them.
    """

    def __init__(self, lowering: Lowering, lexemes: Lexemes, atoms: tuple[int, ...], *, in_order: bool) -> None:
        self.lowering, self.lexemes = lowering, lexemes
        formulas = lowering.formulas
        payloads = [formulas.payload(a) for a in atoms]
        self.props: tuple[Props, ...] = tuple([p[1] for p in payloads if p[0] == "P"])
        self.names: tuple[Sub, ...] = tuple([p[1] for p in payloads if p[0] == "N"])
        lists = [list(p.listed) for p in self.props if p.ordered] if in_order else []
        lists.sort(key=lambda keys: len(keys) < 2)  # if one list alone orders anything, its keys get the first numbers
        numbers: dict[str, int] = {}
        for keys in (*lists, *(p.listed for p in self.props), *(sorted(p[1]) for p in payloads if p[0] == "R")):
            for key in keys:
                numbers.setdefault(key, len(numbers))
        self.number = numbers
        self.keys = tuple(numbers)
        self.ordered_mask = 0
        for keys in lists:
            for key in keys:
                self.ordered_mask |= 1 << numbers[key]
        lists = [keys for keys in lists if len(keys) > 1]
        self._before = None if len(lists) < 2 else _precedences(lists, numbers)
        self._single = (1 << len(lists[0])) - 1 if len(lists) == 1 else 0  # they have the first numbers, in order
        self.patterns = tuple(dict.fromkeys(pattern.source for p in self.props for pattern, _ in p.patterns))
        for p in self.props:
            lexemes.add_patterns(pattern for pattern, _ in p.patterns)
        tests = [("re", source) for source in self.patterns]
        self.name_formulas = tuple([lowering.split(sub)[2] for sub in self.names])
        for f in self.name_formulas:
            tests.extend(t for a in formulas.atoms(f) if (t := formulas.payload(a)) not in tests)
        self.key_tests = tuple(tests)
        self._children: dict[tuple[int, Key], Sub] = {}
        self._name_ok: dict[tuple[int, Key], bool] = {}
        self.fitting: dict[tuple[Any, ...], dict[tuple[Any, ...], bool]] = {}
        self.possible: dict[tuple[int, ...], int] = {}
        self.asked: dict[tuple[tuple[int, ...], Key], Sub] = {}

    @property
    def is_single_list(self) -> bool:
        """Do the listed keys have one total order, which is that of their numbers?"""
        return self._before is None

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """For each known key its place among the keys sorted by their bytes."""
        places = {key: place for place, key in enumerate(self.sorted_keys)}
        return tuple([places[key] for key in self.keys])

    @cached_property
    def sorted_keys(self) -> tuple[str, ...]:
        """The known keys in the order of their bytes."""
        return tuple(sorted(self.keys, key=encoded))

    @cached_property
    def blocked_leaves(self) -> tuple[int, ...]:
        """`blocked_by` of the known keys, all in leaves (`leaves`) instead of keys."""
        bits = [1 << leaf for leaf in self.leaves]
        ordered = sum(bits[key] for key in bits_of(self.ordered_mask))
        found, before = [0] * len(bits), 0
        for key, bit in enumerate(bits):
            if not self.ordered_mask >> key & 1:
                behind = bit | ordered
            elif self._before is not None:
                behind = bit | sum(bits[k] for k in bits_of(self._before[key]))
            elif self._single >> key & 1:
                behind = before = before | bit
            else:
                behind = bit
            found[bit.bit_length() - 1] = behind
        return tuple(found)

    # -- order ------------------------------------------------------------------------------------------------------

    def before(self, key: int) -> int:
        """Known keys that may not come after this one (itself not included)."""
        if self._before is not None:
            return self._before[key]
        bit = 1 << key
        return bit - 1 if self._single & bit else 0

    def blocked_by(self, key: Key) -> int:
        """Known keys that may not come any more after `key`."""
        if isinstance(key, int):
            bit = 1 << key
            if self.ordered_mask & bit:
                return bit | self.before(key)
            return bit | self.ordered_mask
        return self.ordered_mask

    # -- what a key asks --------------------------------------------------------------------------------------------

    def tests_of(self, key: int) -> tuple[int, ...]:
        """What the key tests say about a known key."""
        text = self.keys[key]
        return tuple(int(self.lexemes.string_passes(test, text)) for test in self.key_tests)

    def child(self, props: Props, key: Key) -> Sub:
        """The sub that `props` asks of the value of `key`."""
        memo = (id(props), key)
        known = self._children.get(memo)
        if known is None:
            known = self._children[memo] = self._child(props, key)
        return known

    def _child(self, props: Props, key: Key) -> Sub:
        if not props.patterns:
            own = props.listed.get(self.keys[key]) if isinstance(key, int) else None
            return props.additional if own is None else own
        subs = []
        if isinstance(key, int):
            text = self.keys[key]
            listed = props.listed.get(text)
            if listed is not None:
                subs.append(listed)
            for pattern, sub in props.patterns:
                if self.lexemes.string_passes(("re", pattern.source), text):
                    subs.append(sub)
        else:
            for pattern, sub in props.patterns:
                if key[self.patterns.index(pattern.source)]:
                    subs.append(sub)
        return self.lowering.both(subs) if subs else props.additional

    def name_ok(self, which: Sub, key: Key) -> bool:
        """Does the key satisfy the `propertyNames` schema `which`?"""
        memo = (which, key)
        known = self._name_ok.get(memo)
        if known is None:
            formulas = self.lowering.formulas
            results = dict(zip(self.key_tests, self.tests_of(key) if isinstance(key, int) else key, strict=True))
            f = self.lowering.split(which)[2]
            known = formulas.holds(f, lambda atom: bool(results[formulas.payload(atom)]))
            self._name_ok[memo] = known
        return known

    # -- other keys -------------------------------------------------------------------------------------------------

    @cached_property
    def other_classes(self) -> list[tuple[int, ...]]:
        """What the key tests can say about keys that are not known."""
        if not self.key_tests:
            return [()]
        found: list[tuple[int, ...]] = []

        open_: list[tuple[int, ...]] = [()]
        while open_:
            values = open_.pop()
            if not self.others_left(values, NOBODY, 1):
                continue
            if len(values) == len(self.key_tests):
                found.append(values)
            else:
                open_ += [(*values, 1), (*values, 0)]
        return found

    def others_left(self, values: tuple[int, ...], seen: Seen, n: int) -> bool:
        """Are there `n` more keys, not known and not seen, about which the first key tests say `values`?"""
        if not self.key_tests:
            return True
        care = (1 << len(values)) - 1
        value = sum(bit << i for i, bit in enumerate(values))
        unnamed = values in seen  # it is one of those that the next line counts
        return self.lexemes.has_strings(self.key_tests, ((care, value),), self.excluded(seen), n + unnamed)

    def excluded(self, seen: Seen) -> frozenset[str]:
        return frozenset(self.keys) | frozenset(named(seen))


NOBODY: Final[Seen] = frozenset()


def named(seen: Seen) -> list[str]:
    """The names that are known."""
    return [key for key in seen if isinstance(key, str)]


def _precedences(lists: list[list[str]], numbers: dict[str, int]) -> list[int]:
    """For each key the keys that may not come after it."""
    n = len(numbers)
    before = [0] * n
    for keys in lists:
        earlier = 0
        for key in keys:
            k = numbers[key]
            before[k] |= earlier
            earlier |= 1 << k
    reach = _closure(before)
    component = [0] * n
    for k in range(n):
        if reach[k] >> k & 1:  # on a cycle: with all that reach it and that it reaches
            component[k] = sum(1 << j for j in bits_of(reach[k]) if reach[j] >> k & 1)
    return [before[k] & ~component[k] for k in range(n)]


def _closure(before: list[int]) -> list[int]:
    """Transitive closure of a relation given as bit sets (Warshall)."""
    reach = list(before)
    for middle in range(len(reach)):
        bit = 1 << middle
        through = reach[middle]
        if through:
            for k, bits in enumerate(reach):
                if bits & bit:
                    reach[k] = bits | through
    return reach
