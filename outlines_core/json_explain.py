"""A state of a JSON Schema's automaton in words: where the text is, what may follow, and which schema asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from outlines_core.json_schema.formula import FALSE, TRUE, Formula
from outlines_core.json_schema.lexemes import TestKey
from outlines_core.json_schema.machine import ARRAYS, NUMBERS, OBJECTS, STRINGS, ArrayFrame, Goal, ObjectFrame
from outlines_core.json_schema.shapes import bits_of
from outlines_core.json_tables import AFTER, NEXT
from outlines_core.kernels import json as kernel

if TYPE_CHECKING:
    from outlines_core.json_core import JsonCore

__all__ = ["explain"]

_SHOWN = 5


def explain(core: JsonCore, state: int) -> str:
    """Where a live state is and what is expected next, with JSON pointers into the schema."""
    with core.lock:
        config = core.config[core.state_config[state]]
        i, c, t, x, sid = config.tolist()
        where = _path(core, sid)
        kind = int(core.inst[i, kernel.I_KIND])
        if kind == kernel.STRUCT:
            what = _structural(core, core.info(i))
        elif kind == kernel.STRING:
            what = _string(core, i, t, x)
        else:
            what = _plain(core, i, c)
        shortest = core.completion(state)
    may_end = "may end here" if core.accepts(state) else "may not end here"
    shown = shortest[:80].decode("utf-8", "backslashreplace")
    return (
        f"{core.label}: at {where}: {what}; the text {may_end}; a short completion: "
        f"{shown!r}{'...' if len(shortest) > 80 else ''}"
    )


def _path(core: JsonCore, sid: int) -> str:
    """The way to the value that is being written, from the root `$`."""
    steps = []
    while sid:
        entry, parent = core.stack[sid].tolist()
        made = core.return_of(entry >> 1)
        if made.shape is None:
            steps.append("[]")
        else:
            steps.append(f".{made.key}" if made.key.isidentifier() else f"[{json.dumps(made.key)}]")
        sid = parent
    return "$" + "".join(reversed(steps))


def _structural(core: JsonCore, info: Any) -> str:
    match info:
        case ("end",):
            return "the value is complete; whitespace may follow"
        case ("value", goal):
            return f"a value is expected: {_values(core, goal)}"
        case ("colon", made):
            return f'":" is expected, then a value: {_values(core, made.goal)}'
        case ("member", goal):
            return f'":" is expected, then a value: {_values(core, goal)}'
        case ("object", frame, point):
            return _object(core, frame, point)
        case ("array", frame, point):
            return _array(core, frame, point)
    raise AssertionError(info)


def _object(core: JsonCore, frame: ObjectFrame, point: int) -> str:
    shape = frame.shape
    known, others = core.machine.keys(frame)
    expected = []
    if known:
        expected.append(f"the key {_listed((shape.keys[k] for k in bits_of(known)), known.bit_count())}")
    if others:
        expected.append("another key" if known or shape.keys else "a key")
    if expected and point == AFTER:
        expected = [f'"," and then {" or ".join(expected)}']
    if point != NEXT and frame.closing is not None:
        expected.append('"}"')
    text = f"in an object{_by(core, frame)}, expected: {' or '.join(expected)}"
    required = _required(core, frame)
    return f"{text}; still required: {_listed(required, len(required), joint=' and ')}" if required else text


def _required(core: JsonCore, frame: ObjectFrame) -> list[str]:
    formulas = core.machine.formulas
    keys = 0
    for atom in formulas.conjuncts(frame.goal):
        if atom > 0 and formulas.is_atom(atom) and formulas.payload(atom)[0] == "r":
            keys |= formulas.payload(atom)[1]
    return [frame.shape.keys[k] for k in bits_of(keys)]


def _array(core: JsonCore, frame: ArrayFrame, point: int) -> str:
    made = core.machine.item(frame)
    expected = []
    if made is not None:
        item = f"an item: {_values(core, made.goal)}"
        expected.append(f'"," and then {item}' if point == AFTER else item)
    if point != NEXT and frame.closing is not None:
        expected.append('"]"')
    return f"in an array{_by(core, frame)}, expected: {' or '.join(expected)}"


def _values(core: JsonCore, goal: Goal) -> str:
    """The kinds of values that fulfil a goal."""
    machine = core.machine
    kinds = [word for bit, word in ((1, "null"), (2, "false"), (4, "true")) if machine.constant(goal, bit) is not None]
    for which, kind in ((STRINGS, "a string"), (NUMBERS, "a number")):
        f = machine.part(goal, which)
        alive = machine.sat.strings(f) if which == STRINGS else machine.sat.numbers(f)
        if alive:
            kinds.append(kind + _constraint(core, f))
    for which, kind in ((ARRAYS, "an array"), (OBJECTS, "an object")):
        f = machine.part(goal, which)
        if f != FALSE and (machine.sat.arrays(f) if which == ARRAYS else machine.sat.objects(f)):
            kinds.append(kind)
    return (" or ".join(kinds) or "none") + _by(core, goal)


def _string(core: JsonCore, i: int, t: int, x: int) -> str:
    info = core.info(i)
    if t == -1:
        t = core.root(i)
    escape = ", within an escape" if x >> 19 & 7 not in (0, kernel.RAW_ED) else ""
    texts: list[str] = []
    if t > 0:
        low, high = core.nodes[t, 4:6].tolist()
        texts = [info[-1][leaf] for leaf in range(low, high) if core.is_allowed(i, leaf)]
    if info[0] == "key":
        known = f"of the key {_listed(texts, len(texts))}" if texts else ""
        other = "of another key" if core.inst[i, kernel.I_FLAGS] & kernel.OTHERS else ""
        return f"the rest {' or '.join(filter(None, (known, other)))} is expected{_by(core, info[1])}{escape}"
    if info[0] == "texts":
        return f"the rest of {_listed(texts, len(texts))} is expected{escape}"
    counted = core.inst[i, kernel.I_FLAGS] & kernel.COUNTED
    so_far = f", of which there are {x >> 32} so far" if counted else ""
    goal = info[1] if info[0] == "recognized" else info[2] if counted else None
    if goal is not None:
        f = core.machine.part(goal, STRINGS)
        return f"the rest of a string{_constraint(core, f)}{so_far} is expected{_by(core, goal)}{escape}"
    return f"the rest of a string is expected{escape}"


def _plain(core: JsonCore, i: int, c: int) -> str:
    info = core.info(i)
    what = "a word such as null"
    if info[0] == "number":
        goal = info[1]
        what = f"a number{_constraint(core, core.machine.part(goal, NUMBERS))}{_by(core, goal)}"
    done = " (it may be complete)" if core.rows[c, kernel.OUTCOME] >= 0 else ""
    return f"the rest of {what} is expected{done}"


def _constraint(core: JsonCore, f: Formula) -> str:
    """The atoms of a formula in words."""
    if f in (TRUE, FALSE):
        return ""
    formulas = core.machine.formulas
    parts = [
        ("" if part > 0 else "not ") + _words(formulas.payload(abs(part)))
        for part in formulas.conjuncts(f)
        if formulas.is_atom(abs(part))
    ]
    mixed = ["by several alternatives"] if len(parts) < len(formulas.conjuncts(f)) else []
    shown = list(dict.fromkeys(filter(None, parts)))
    return " " + ", ".join([*shown[:_SHOWN], *mixed]) if shown or mixed else ""


def _words(test: TestKey) -> str:
    match test:
        case ("len", least, None):
            return f"of at least {least} characters"
        case ("len", least, most):
            return f"of {least} characters" if least == most else f"of {least} to {most} characters"
        case ("re", source):
            return f"that matches {source!r}"
        case ("fmt", name, part):
            return f"in the format {name}" if part == 0 else ""
        case ("lazy", name):
            return f"in the format {name}"
        case ("str" | "num", values):
            return f"among {_listed(sorted(values, key=repr), len(values))}"
        case ("int",):
            return "that is an integer"
        case ("mul", divisor):
            return f"that is a multiple of {_decimal(divisor)}"
        case ("range", low, low_open, high, high_open):
            bounds = []
            if low is not None:
                bounds.append(f"{'>' if low_open else '>='} {_decimal(low)}")
            if high is not None:
                bounds.append(f"{'<' if high_open else '<='} {_decimal(high)}")
            return " and ".join(bounds)
    raise AssertionError(test)


def _decimal(value: Any) -> str:
    value = Fraction(value)
    return str(value.numerator) if value.denominator == 1 else repr(float(value))


def _listed(values: Iterable[Any], n: int, joint: str = ", ") -> str:
    shown: list[str] = []
    for value in values:
        if len(shown) == _SHOWN:
            break
        shown.append(json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _decimal(value))
    more = f" or {n - len(shown)} more" if n > len(shown) else ""
    return joint.join(shown) + more


def _by(core: JsonCore, what: Goal | ObjectFrame | ArrayFrame) -> str:
    return f" (schema #{core.machine.lowering.place(what.place)})"
