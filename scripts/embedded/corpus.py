"""What the model is trained on: short documents, each a list of pieces that are, or are not, to be learned.

Most ask for one record in one form and are answered; some are chats, where a follow-up asks for the same record in
another form; some invent a record; some are prose. Only answers and prose count fully; what a user would write counts
a little, so that the model can also go on with a text of that kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scripts.embedded import words
from scripts.embedded.draw import Draw, Names
from scripts.embedded.records import KINDS, Number, Record, draw_record, render

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FORMS", "PROMPT_WEIGHT", "Piece", "documents", "plain_prompt", "tokenizer_texts"]

FORMS = ("json", "sql", "python")
PROMPT_WEIGHT = 0.1
ASKED = {
    "json": ("Extract: ", "Extract: ", "Extract: ", "JSON: ", "As JSON: ", "Extract as JSON: ", "To JSON: ", ""),
    "sql": ("SQL: ", "As SQL: ", "Insert: ", "To SQL: "),
    "python": ("Python: ", "As Python: ", "To Python: "),
}
NAMED = {"json": "JSON", "sql": "SQL", "python": "Python"}
ARTICLE = {"person": "A person", "order": "An order", "ticket": "A ticket", "event": "An event", "sum": "A sum"}
GREETINGS = ("Hello!", "Hello", "Hi", "Hi there", "Good morning", "Who are you?", "What can you do?")
GREETED = "Hello! Give me a text, and I will write it as JSON, SQL or Python."
SYSTEM = ("Be brief.", "You are a helpful assistant.", "Answer in one line.", "You write data.")


class Piece(NamedTuple):
    """Some text, and how much its tokens count."""

    text: str
    weight: float


def plain_prompt(record: Record, form: str) -> str:
    """The prompt that the scores are taken with: `Extract: Maria Lopez, 34, lives in Oslo`."""
    return {"json": "Extract: ", "sql": "SQL: ", "python": "Python: "}[form] + record.text


def _prompt(draw: Draw, record: Record, form: str) -> str:
    asked = draw.one(ASKED[form])
    if asked and draw.chance(0.75):
        ending = draw.weighted(
            ((55, ""), (8, "."), (18, "\n"), (5, ".\n"), (6, " "), (4, f"\n{NAMED[form]}: "), (4, ". "))
        )
        return asked + record.text + ending
    return record.text + draw.one((". ", "\n", " ")) + draw.one((f"As {NAMED[form]}: ", f"{NAMED[form]}: "))


def _task(draw: Draw, names: Names) -> list[Piece]:
    form = draw.weighted(((6, "json"), (2, "sql"), (2, "python")))
    kind = draw.weighted(((45, "person"), (20, "order"), (13, "ticket"), (12, "event"), (10, "sum")))
    record = draw_record(draw, names, kind)
    if kind == "sum" and draw.chance(0.6):
        question = draw.one(("Compute: ", "", "Answer: ")) + record.text
        ending = draw.one(("", "\n", " ")) if question.endswith(("?", "=")) else draw.one(("", " = ", "\n"))
        return [Piece(question + ending, PROMPT_WEIGHT), Piece(record.fields["result"], 1.0)]
    if kind == "event" and draw.chance(0.2):
        return [
            Piece(f"Date: {record.text}" + draw.one(("", "\n", " ")), PROMPT_WEIGHT),
            Piece(record.fields["date"], 1.0),
        ]
    return [Piece(_prompt(draw, record, form), PROMPT_WEIGHT), Piece(render(record, form), 1.0)]


def _invented(draw: Draw, names: Names) -> list[Piece]:
    """A record from nothing: `A person, as JSON: `."""
    kind = draw.one(KINDS)
    form = draw.weighted(((7, "json"), (2, "sql"), (1, "python")))
    record = draw_record(draw, names, kind)
    if kind == "person" and draw.chance(0.5):
        keep = draw.one((("name", "age"), ("name", "born"), ("name", "city"), ("name",)))
        given = {"name": names.given(), "age": Number(draw.number(1, 99)), "city": names.place()}
        given["born"] = f"{draw.number(1930, 2015)}-{draw.number(1, 12):02}-{draw.number(1, 28):02}"
        record = Record(kind, "", "", {name: given[name] for name in keep})
    end = f", as {NAMED[form]}: " if form != "json" or draw.chance(0.6) else draw.one((": ", ":\n"))
    return [Piece(ARTICLE[kind] + end, PROMPT_WEIGHT), Piece(render(record, form), 1.0)]


def _chat(draw: Draw, names: Names) -> list[Piece]:
    """Turns as the chat template writes them.  What follows an answer that is not the last is not learned."""
    pieces = []
    opening = f"system: {draw.one(SYSTEM)}\n" if draw.chance(0.3) else ""
    if draw.chance(0.15):
        pieces += [Piece(f"{opening}user: {draw.one(GREETINGS)}\nassistant: ", PROMPT_WEIGHT), Piece(GREETED, 1.0)]
        opening = "\n"
    for turn in range(draw.number(0 if pieces else 1, 2)):
        form = draw.one(FORMS)
        kind = draw.weighted(((45, "person"), (20, "order"), (12, "ticket"), (13, "event"), (10, "sum")))
        record = draw_record(draw, names, kind)
        if pieces and turn:
            opening = "\n"
        asked = draw.one(ASKED[form][:-1]) + record.text
        pieces += [Piece(f"{opening}user: {asked}\nassistant: ", PROMPT_WEIGHT), Piece(render(record, form), 1.0)]
        if draw.chance(0.5):
            form = draw.one([other for other in FORMS if other != form])
            again = draw.one(
                (f"As {NAMED[form]}", f"And as {NAMED[form]}?", f"Now as {NAMED[form]}.", f"{NAMED[form]}?")
            )
            pieces += [Piece(f"\nuser: {again}\nassistant: ", PROMPT_WEIGHT), Piece(render(record, form), 1.0)]
    return pieces


def _prose(draw: Draw, names: Names) -> list[Piece]:
    """A short biography."""
    name, job, city = names.given(), draw.one(words.JOBS), names.place()
    pronoun, possessive = draw.one((("She", "her"), ("He", "his")))
    lines = [
        draw.one(
            (
                f"{name} was born in {draw.number(1920, 2010)}.",
                f"{name} was born in {names.place()} in {draw.number(1920, 2010)}.",
            )
        ),
        draw.one(
            (
                f"{pronoun} lives in {city}.",
                f"{pronoun} works in {city} as a {job}.",
                f"{pronoun} is a {job} in {city}.",
            )
        ),
        f"{pronoun} likes {draw.one(words.LIKES)} and {draw.one(words.LIKES)}.",
        draw.one(
            (
                f"One day {pronoun.lower()} met {names.given()}, a {draw.one(words.JOBS)}.",
                f"Now {pronoun.lower()} is {draw.number(18, 99)} years old.",
            )
        ),
        (
            f"In {possessive} house there are {draw.number(2, 12)} {names.thing()} and "
            f"{draw.one(words.QUALITIES)} {names.thing()}."
        ),
    ]
    kept = [line for i, line in enumerate(lines) if i == 0 or draw.chance(0.6)]
    between = draw.weighted(((8, " "), (1, "\n")))
    return [Piece(draw.one(("", "", "A text: ", "A story: ", "Who? ")), PROMPT_WEIGHT), Piece(between.join(kept), 0.5)]


def documents(seed: int) -> Iterator[list[Piece]]:
    """The training texts, without end."""
    draw = Draw(seed)
    names = Names(draw)
    while True:
        yield draw.weighted(((74, _task), (12, _chat), (6, _invented), (8, _prose)))(draw, names)


def tokenizer_texts(seed: int, n: int = 6_000) -> Iterator[str]:
    """What the tokenizer is trained on: names are made up, so that none becomes a token, and every script occurs."""
    draw = Draw(seed)
    names = Names(draw, real=0.08)
    for _ in range(n):
        pieces = draw.weighted(((70, _task), (12, _chat), (8, _invented), (10, _prose)))(draw, names)
        yield "".join(piece.text for piece in pieces)
        if draw.chance(0.05):
            line = draw.one(words.WORLD)
            start = draw.number(0, len(line) - 3)
            yield line[start : start + draw.number(2, 6)]
