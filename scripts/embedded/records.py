"""Records, the texts that tell them, and the JSON, SQL and Python that belongs to each.

A record is drawn first; a template of one of its kind's families then tells it in words. The families of `UNSEEN` are
never trained on, nor are the values that `is_held_out` picks (about one in 13), nor the names behind the bars in
`words`, unless random syllables happen to spell one.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.embedded import words
from scripts.embedded.draw import Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.embedded.draw import Draw

__all__ = ["KINDS", "SCHEMAS", "UNSEEN", "Number", "Record", "draw_record", "is_held_out", "render"]

KINDS = ("person", "order", "ticket", "event", "sum")
TABLES = {"person": "people", "order": "orders", "ticket": "tickets", "event": "events"}

SEEN: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "list": (
            "{name}, {age}, {city}",
            "{name}, {age}, lives in {city}",
            "{name}, {age}, from {city}",
            "{name} ({age}), {city}",
            "{name}, {age}, {job} in {city}",
            "{name}, {job}, {age}, {city}",
            "{name} / {city} / {age}",
        ),
        "sentence": (
            "{name} is {age} years old and lives in {city}",
            "{name} is {age} and lives in {city}",
            "{name} is a {age}-year-old {job} from {city}",
            "{name} works as a {job} in {city} and is {age} years old",
            "{name}, who is {age}, moved to {city}",
            "{name} lives in {city} and is {age} years old",
            "{name} from {city} is {age}",
            "{name} of {city} turned {age} and is a {job}",
        ),
        "form": (
            "name: {name}; age: {age}; city: {city}",
            "name: {name}, city: {city}, age: {age}",
            "city: {city}, name: {name}, job: {job}, age: {age}",
            "age {age}, name {name}, city {city}",
            "name = {name}, age = {age}, city = {city}",
        ),
        "born": (
            "{name} was born on {born} in {city}",
            "{name}, born {born}, lives in {city}",
            "{name}, born on {born}, {job} from {city}",
            "born {born} in {city}: {name}",
        ),
        "first person": (
            "my name is {name}, I am {age} and I live in {city}",
            "I am {name}, {age} years old, from {city}",
            "I live in {city}, my name is {name} and I am {age}",
        ),
        "city first": (
            "from {city}: {name}, {age}",
            "{city} is home to {name}, who is {age}",
            "{city}: {name}, {age}",
            "in {city} lives {name}, {age} years old",
            "in {city}, the {job} {name} turned {age}",
        ),
        "parts": (),  # put together by `_person_parts`
    },
    "order": {
        "list": (
            "{quantity} x {item}, {price} each, for {customer}",
            "{customer}: {quantity} {item}, {price}",
            "{quantity} {item} for {customer} at {price}",
            "{item}, {quantity} pieces, {price}, {customer}",
        ),
        "sentence": (
            "{customer} ordered {quantity} {item} at {price} each",
            "{customer} buys {quantity} {item} for {price}",
            "{customer} wants {quantity} {item} and pays {price} for each",
            "please send {quantity} {item} at {price} to {customer}",
            "we sold {quantity} {item} to {customer} for {price}",
        ),
        "form": (
            "customer: {customer}, item: {item}, quantity: {quantity}, price: {price}",
            "item: {item}; price: {price}; quantity: {quantity}; customer: {customer}",
        ),
        "short": ("{quantity} {item}, please", "I would like {quantity} {item}", "{customer} takes {quantity} {item}"),
    },
    "ticket": {
        "list": (
            "#{id} {sender}: {subject} ({priority})",
            "ticket {id}, {priority}, {sender}: {subject}",
            "{sender}, ticket {id}: {subject}, {priority}",
            "[{priority}] {id} {subject} - {sender}",
        ),
        "sentence": (
            "ticket {id} from {sender} says {subject}, priority {priority}",
            "{sender} reports: {subject}. Ticket {id}, {priority} priority",
            "{sender} opened ticket {id} with {priority} priority: {subject}",
            "a {priority} priority ticket, {id}, came from {sender}: {subject}",
        ),
        "form": (
            "id: {id}, from: {sender}, subject: {subject}, priority: {priority}",
            "priority: {priority}; subject: {subject}; id: {id}; from: {sender}",
        ),
    },
    "event": {
        "list": (
            "{event}, {date}, {time}",
            "{date}, {time}: {event}",
            "{date} {time} {event}",
            "{event} ({date}, {time})",
        ),
        "sentence": (
            "the {event} is on {date} at {time}",
            "{event} on {date} at {time}",
            "on {date} at {time} there is a {event}",
            "we meet for {event} at {time} on {date}",
            "the {event} with {guest} starts at {time} on {date}",
            "{guest} comes to the {event} on {date} at {time}",
        ),
        "form": ("event: {event}, date: {date}, time: {time}", "date: {date}; time: {time}; event: {event}"),
    },
    "sum": {
        "signs": ("{a} {sign} {b}", "{a}{sign}{b}", "{a} {sign} {b} ="),
        "words": ("{a} {word} {b}", "what is {a} {word} {b}?", "what is {a} {sign} {b}?", "how much is {a} {word} {b}"),
    },
}
UNSEEN: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "inverted": (
            "in {city} we met {name}, a {job} aged {age}",
            "at {age}, {name} still lives in {city}",
            "there is someone in {city} called {name}, {age} years old",
        )
    },
    "order": {
        "parcel": (
            "for {customer} we packed {quantity} {item}, priced at {price}",
            "the parcel with {quantity} {item} went to {customer} and cost {price}",
        )
    },
    "ticket": {
        "priority first": (
            "{priority} priority for {id}: {sender} wrote that {subject}",
            "with {priority} priority {sender} sent us number {id}, {subject}",
        )
    },
    "event": {"reminder": ("remember {date}: {event}, doors open at {time}", "at {time} the {event} begins, {date}")},
    "sum": {"asked": ("tell me {a} {word} {b}", "{a} {word} {b} makes")},
}

_TEXT: dict[str, object] = {"type": "string", "minLength": 1, "maxLength": 40}
_DATE: dict[str, object] = {"type": "string", "format": "date"}
_FIELDS: dict[str, dict[str, object]] = {
    "name": _TEXT,
    "age": {"type": "integer", "minimum": 0, "maximum": 120},
    "born": _DATE,
    "job": _TEXT,
    "city": _TEXT,
    "customer": _TEXT,
    "item": _TEXT,
    "quantity": {"type": "integer", "minimum": 1},
    "price": {"type": "number", "minimum": 0},
    "id": {"type": "integer", "minimum": 0},
    "from": _TEXT,
    "subject": _TEXT,
    "priority": {"enum": ["low", "normal", "high"]},
    "event": _TEXT,
    "guest": _TEXT,
    "date": _DATE,
    "time": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
    "expression": _TEXT,
    "result": {"type": "integer"},
}
SCHEMAS = _FIELDS
"""The schema of each field."""


class Number(str):
    """A number as it is written: `12.50` stays `12.50`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What a text tells.  `fields` are in the order of the record's JSON."""

    kind: str
    family: str
    text: str
    fields: dict[str, str]

    @property
    def schema(self) -> dict[str, object]:
        """The JSON Schema that the record's JSON is valid under."""
        return {
            "type": "object",
            "properties": {name: _FIELDS[name] for name in self.fields},
            "required": list(self.fields),
            "additionalProperties": False,
        }


def is_held_out(value: int) -> bool:
    """Whether no text that training turns into a record has this age, quantity, price, ticket, operands or day."""
    return zlib.crc32(str(value).encode()) % 13 == 0 or value == 34


def render(record: Record, form: str) -> str:
    """The record as `json`, `sql` or `python`."""
    fields = record.fields
    if form == "json":
        return "{" + ", ".join(f'"{k}": {_quoted(v)}' for k, v in fields.items()) + "}"
    if record.kind == "sum":
        return f"SELECT {fields['expression']};" if form == "sql" else f"print({fields['expression']})"
    if form == "sql":
        values = ", ".join(v if isinstance(v, Number) else "'" + v.replace("'", "''") + "'" for v in fields.values())
        return f"INSERT INTO {TABLES[record.kind]} ({', '.join(fields)}) VALUES ({values});"
    given = ", ".join(f"{'sender' if k == 'from' else k}={_quoted(v)}" for k, v in fields.items())
    return f"{record.kind.capitalize()}({given})"


def _quoted(value: str) -> str:
    return value if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def _value(draw: Draw, low: int, high: int, held_out: bool | None) -> int:
    """A number that training sees (False), never sees (True), or either (None)."""
    while True:
        value = draw.number(low, high)
        if held_out is None or is_held_out(value) == held_out:
            return value


def _day(draw: Draw, held_out: bool | None, low: int, high: int) -> tuple[str, str]:
    """A date as a text tells it, and as ISO 8601 does."""
    while True:
        year, month, day = draw.number(low, high), draw.number(1, 12), draw.number(1, 28)
        if held_out is None or is_held_out(year * 400 + month * 32 + day) == held_out:
            break
    name = words.MONTHS[month - 1]
    iso = f"{year}-{month:02}-{day:02}"
    return draw.one(
        (f"{day} {name} {year}", f"{name} {day}, {year}", iso, f"{day}.{month}.{year}", f"{day} {name} {year}")
    ), iso


def _person(draw: Draw, names: Names, values: bool | None) -> tuple[dict[str, str], dict[str, str]]:
    told, born = _day(draw, values, 1920, 2015)
    fields = {
        "name": names.person(),
        "age": Number(_value(draw, 1, 99, values)),
        "born": born,
        "job": draw.one(words.JOBS),
        "city": names.place(),
    }
    return fields, fields | {"born": told}


def _order(draw: Draw, names: Names, values: bool | None) -> tuple[dict[str, str], dict[str, str]]:
    quantity = _value(draw, 1, draw.one((12, 60, 400)), values)
    price = f"{_value(draw, 1, draw.one((20, 300)), values)}.{draw.one(('00', '50', '99', f'{draw.number(0, 99):02}'))}"
    fields = {
        "customer": names.person(),
        "item": names.thing(),
        "quantity": Number(quantity),
        "price": Number(price),
    }
    spelled = words.NUMBERS[quantity] if quantity <= 12 and draw.chance(0.4) else str(quantity)
    money = draw.weighted(((6, price), (1, f"${price}"), (1, f"{price} EUR"), (1, f"€{price}")))
    return fields, fields | {"quantity": spelled, "price": money}


def _ticket(draw: Draw, names: Names, values: bool | None) -> tuple[dict[str, str], dict[str, str]]:
    fields = {
        "id": Number(_value(draw, 1, draw.one((999, 9_999, 99_999)), values)),
        "from": names.person(),
        "subject": names.subject(),
        "priority": draw.one(("low", "normal", "high")),
    }
    return fields, fields | {"sender": fields["from"]}


def _event(draw: Draw, names: Names, values: bool | None) -> tuple[dict[str, str], dict[str, str]]:
    told, date = _day(draw, values, 1990, 2040)
    title = draw.one(words.TITLES) if draw.chance(0.7) else names.word(draw.number(1, 3))
    hour, minute = draw.number(0, 23), draw.one((0, 15, 30, 45, draw.number(0, 59)))
    fields = {"event": title, "guest": names.person(), "date": date, "time": f"{hour:02}:{minute:02}"}
    told_time = f"{hour}:{minute:02}" if draw.chance(0.3) else fields["time"]
    return fields, fields | {"date": told, "time": told_time}


def _sum(draw: Draw, _names: Names, values: bool | None) -> tuple[dict[str, str], dict[str, str]]:
    sign, word = draw.one((("+", "plus"), ("+", "plus"), ("-", "minus"), ("*", "times")))
    most = 12 if sign == "*" else draw.one((20, 99))
    while True:
        a, b = draw.number(0, most), draw.number(0, most)
        if values is None or is_held_out(a * 1_000 + b) == values:
            break
    if sign == "-" and a < b:
        a, b = b, a
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    fields = {"expression": f"{a} {sign} {b}", "result": Number(result)}
    return fields, {"a": str(a), "b": str(b), "sign": sign, "word": word}


_DRAWN: dict[str, Callable[[Draw, Names, bool | None], tuple[dict[str, str], dict[str, str]]]] = {
    "person": _person,
    "order": _order,
    "ticket": _ticket,
    "event": _event,
    "sum": _sum,
}


def _person_parts(draw: Draw) -> str:
    """A template of clauses in any order, so that a text's shape does not give the fields away."""
    parts = [
        draw.one(("{age}", "aged {age}", "{age} years old", "age {age}", "who is {age}", "now {age}")),
        draw.one(("lives in {city}", "from {city}", "in {city}", "living in {city}", "based in {city}", "of {city}")),
    ]
    if draw.chance(0.4):
        parts.append(draw.one(("{job}", "a {job}", "works as a {job}", "the {job}")))
    comma = draw.one((", ", ", ", "; ", " "))
    before = draw.one(("", "", "", "this is ", "meet ", "today we welcome ", "a friend, ", "one more: ", "then came "))
    parts = draw.shuffled(parts)
    at = draw.weighted(((4, 0), (1, 1), (1, len(parts))))
    return before + comma.join([*parts[:at], "{name}", *parts[at:]])


def draw_record(
    draw: Draw, names: Names, kind: str, *, unseen_family: bool = False, values: bool | None = False
) -> Record:
    """A record of `kind` and its text.

    Args:
        draw: where the choices come from.
        names: where the names come from.
        kind: one of `KINDS`.
        unseen_family: tell it by a template that training never sees.
        values: whether its numbers and dates are those that training sees (False) or those held out (True).
    """
    family, templates = draw.one(tuple((UNSEEN if unseen_family else SEEN)[kind].items()))
    template = draw.one(templates) if templates else _person_parts(draw)
    fields, told = _DRAWN[kind](draw, names, values)
    if kind != "sum":
        fields = {k: v for k, v in fields.items() if f"{{{'sender' if k == 'from' else k}}}" in template}
    text = template.format_map(told)
    if draw.chance(0.5):
        text = text[0].upper() + text[1:]
    return Record(kind, family, text, fields)
