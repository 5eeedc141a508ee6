"""Random Lark grammars over small alphabets, so that every text of a few characters can be tried.

`GrammarMaker` draws from what the grammar language has: rules with their prefixes, aliases, priorities and templates,
EBNF operators, terminals of strings, regexes, ranges and other terminals with flags, look-arounds and lazy quantifiers,
%ignore, %import, %extend, %override and %declare. Shapes that parsers trip over (left, right and hidden recursion,
cycles, nullable and ambiguous rules, keywords beside identifiers, separated lists, indentation) are skeletons whose
holes are filled at random.

Everything depends on the `random.Random` alone: ``case_of(seed, index, lexer)`` is the same case everywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.grammar_patterns import PatternMaker

__all__ = ["LALR", "LEXERS", "Case", "GrammarMaker", "Indentation", "case_of"]

LEXERS = ("contextual", "basic", "basic_earley", "dynamic", "dynamic_complete", "scannerless")
"""Ways to read a text: Lark's lexers, each with the parser that goes with it; "basic_earley" is "basic" with Earley."""
LALR = ("contextual", "basic")

ALPHABETS = {
    "ab": 10,
    "abc": 14,
    "abcd": 3,
    "ab ": 8,
    "a b": 2,
    "aAb": 4,
    "aAbB": 1,
    "ab\n": 4,
    "aé": 3,
    "aé日": 3,
    "a1": 3,
    "a_1": 2,
    "ab-": 3,
    'a"\\': 2,
    "1+.": 2,
    "a/": 1,
}
"""Letters and how often they are drawn."""
IMPORTS = {
    "1": ["INT", "DIGIT", "NUMBER", "SIGNED_INT", "FLOAT", "DECIMAL", "HEXDIGIT"],
    "+": ["SIGNED_INT", "SIGNED_NUMBER"],
    "_": ["CNAME"],
    "a": ["LETTER", "WORD", "CNAME", "LCASE_LETTER", "HEXDIGIT"],
    "A": ["UCASE_LETTER", "LETTER"],
    " ": ["WS", "WS_INLINE"],
    "\n": ["NEWLINE", "WS", "LF"],
    '"': ["ESCAPED_STRING"],
}
TERMINALS = ["A", "B", "T", "ID", "_S", "WS", "X1", "_T", "AB", "KW_A", "Z"]
RULES = ["e", "t", "x", "_l", "item", "r1", "_r2"]


@dataclass(frozen=True)
class Indentation:
    """The fields of a `lark.indenter.Indenter`."""

    newline: str
    indent: str
    dedent: str
    opening: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    tab: int = 8


@dataclass(frozen=True)
class Case:
    """A grammar and the options to compile it with.  `letters`: what the texts to try are made of."""

    grammar: str
    letters: str
    lexer: str
    start: str = "start"
    flags: int = 0
    indentation: Indentation | None = None
    features: frozenset[str] = field(default_factory=frozenset, compare=False)

    @property
    def options(self) -> dict[str, Any]:
        """What `oc.compile_grammar` is to be told (and lark, which has no scannerless reading)."""
        parsers = {"contextual": "lalr", "basic": "lalr", "scannerless": None}
        lexer = self.lexer.removesuffix("_earley")
        parser = parsers.get(self.lexer, "earley")
        return {"start": self.start, "lexer": lexer, "parser": parser, "g_regex_flags": self.flags}


def quoted(text: str) -> str:
    """A Lark string literal."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


# -- grammars ----------------------------------------------------------------------------------------------------------


class GrammarMaker:
    """One random grammar for one lexer: `case()`."""

    def __init__(self, rng: random.Random, lexer: str) -> None:
        self.rng, self.lexer = rng, lexer
        self.tame = lexer in LALR  # conflicts make lark refuse LALR grammars
        self.letters = rng.choices(list(ALPHABETS), list(ALPHABETS.values()))[0]
        self.patterns = PatternMaker(rng, self.letters)
        self.features = self.patterns.features
        self.terminals: list[str] = []
        self.rules: list[str] = []
        self.templates: dict[str, int] = {}
        self.starts = ["start"]
        self.flags = 0

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def note(self, feature: str, text: str) -> str:
        self.features.add(feature)
        return text

    # -- terminals ------------------------------------------------------------------------------------------------

    def word(self, longest: int = 3) -> str:
        return "".join(self.rng.choices(self.letters, k=self.rng.choice([1, 1, 2, longest])))

    def string(self, longest: int = 3) -> str:
        text = quoted(self.word(longest))
        return self.note("string flag", text + "i") if self.maybe(0.06) else text

    def regex(self) -> str:
        flags = "".join(self.rng.sample("imsx", self.rng.choice([1, 1, 2]))) if self.maybe(0.1) else ""
        if flags:
            self.features.add("regex flag")
        return f"/{self.patterns.terminal()}/{flags}"

    def range(self) -> str:
        low, high = sorted(self.rng.choices([c for c in self.letters if c not in '"\\\n'] or ["a"], k=2))
        return self.note("range", f'"{low}".."{high}"')

    def terminal_item(self, depth: int) -> str:
        pick = self.rng.random()
        if pick < 0.3 and self.terminals:
            return self.note("terminal in terminal", self.rng.choice(self.terminals))
        if pick < 0.6:
            return self.string()
        if pick < 0.72:
            return self.regex()
        if pick < 0.76:
            return self.range()
        if depth > 1:
            return self.string()
        inner = self.terminal_body(depth + 1)
        if pick < 0.8:
            return f"[{inner}]"
        return f"({inner})" + self.rng.choice(["", "+", "*", "?", "~2", "~1..2", "~0..2"])

    def terminal_body(self, depth: int = 0) -> str:
        branches = [
            " ".join(self.terminal_item(depth) for _ in range(self.rng.choice([1, 1, 2, 2, 3])))
            for _ in range(self.rng.choice([1, 1, 2, 2, 3]))
        ]
        return " | ".join(branches)

    def terminal(self) -> str:
        """A definition; its name is known afterwards."""
        name = self.rng.choice([n for n in TERMINALS if n not in self.terminals] or ["Y"])
        pick = self.rng.random()
        if pick < 0.24:
            body = self.string()
        elif pick < 0.72:
            body = self.regex()
        elif pick < 0.76:
            body = self.range()
        else:
            body = self.terminal_body()
        priority = ""
        if self.maybe(0.12):
            priority = self.note("terminal priority", f".{self.rng.choice([-1, 0, 1, 2, 5])}")
        self.terminals.append(name)
        return f"{name}{priority}: {body}"

    def imports(self) -> list[str]:
        fitting = sorted({name for c in self.letters for name in IMPORTS.get(c, ())})
        if not fitting or not self.maybe(0.12):
            return []
        self.features.add("%import")
        names = self.rng.sample(fitting, min(len(fitting), self.rng.choice([1, 1, 2])))
        if len(names) > 1:
            self.terminals += names
            return [f"%import common ({', '.join(names)})"]
        if self.maybe(0.3):
            self.terminals.append("IMPORTED")
            return [f"%import common.{names[0]} -> IMPORTED"]
        self.terminals += names
        return [f"%import common.{names[0]}"]

    def ignored(self) -> list[str]:
        lines = []
        for _ in range(self.rng.choice([1, 1, 1, 2])):
            pick = self.rng.random()
            letter = " " if " " in self.letters and self.maybe(0.7) else self.rng.choice(self.letters)
            if pick < 0.3 and self.terminals:
                what = self.note("%ignore of a terminal", self.rng.choice(self.terminals))
            elif pick < 0.55:
                what = quoted(letter)
            elif pick < 0.8:
                escaped = {"\n": "\\n", "/": "\\/"}.get(letter) or re.escape(letter).replace("\\ ", " ")
                what = f"/{escaped}{self.rng.choice(['', '+', '+', '{2}', '+?'])}/"
            elif pick < 0.9:
                what = self.regex()
            else:
                what = self.terminal_body(1)
            lines.append(f"%ignore {what}")
        return lines

    # -- rules ----------------------------------------------------------------------------------------------------

    def hole(self) -> str:
        """A terminal or a literal, to fill a skeleton with."""
        if self.terminals and self.maybe(0.6):
            return self.rng.choice(self.terminals)
        return self.regex() if self.maybe(0.1) else self.string(2)

    def argument(self) -> str:
        pick = self.rng.random()
        if pick < 0.4 or not self.rules:
            return self.hole()
        if pick < 0.9 or not self.templates:
            return self.rng.choice(self.rules)
        return self.template(depth=1)

    def template(self, depth: int = 0) -> str:
        name = self.rng.choice(sorted(self.templates))
        arguments = [self.argument() if depth == 0 else self.hole() for _ in range(self.templates[name])]
        return self.note("template", f"{name}{{{', '.join(arguments)}}}")

    def item(self, depth: int = 0) -> str:
        pick = self.rng.random()
        if pick < 0.32 and self.terminals:
            return self.rng.choice(self.terminals)
        if pick < 0.54:
            return self.string(2)
        if pick < 0.58:
            return self.regex()
        if pick < 0.6:
            return self.range()
        if pick < (0.72 if self.tame else 0.78):
            return self.rng.choice(self.rules)
        if pick < 0.8 and self.templates:
            return self.template()
        if depth > 1:
            return self.hole()
        if pick < 0.86:
            return f"({self.alternatives(depth + 1)})"
        if pick < 0.9:
            return self.note("[..]", f"[{self.alternatives(depth + 1)}]")
        inner = self.item(depth + 1)
        if inner[-1] in "*+?" or inner[0] == "[" or "~" in inner:
            inner = f"({inner})"
        if pick < 0.97:
            return inner + self.rng.choice("*+?")
        return inner + self.note("~n", self.rng.choice(["~2", "~1..2", "~0..2", "~2..3", "~3", "~0", "~1"]))

    def sequence(self, depth: int) -> str:
        if depth == 0 and self.maybe(0.06):
            return self.note("empty alternative", "")
        return " ".join(self.item(depth) for _ in range(self.rng.choice([1, 1, 2, 2, 3])))

    def alternatives(self, depth: int) -> str:
        return " | ".join(self.sequence(depth) for _ in range(self.rng.choice([1, 1, 2] if depth else [1, 2, 2, 3])))

    def rule(self, name: str, body: str | None = None) -> str:
        """A definition, with prefix, priority and aliases now and then."""
        rng = self.rng
        branches = (self.alternatives(0) if body is None else body).split(" | ") if self.maybe(0.5) else None
        if branches is None:
            text = self.alternatives(0) if body is None else body
        else:
            if not name.startswith("_") and self.maybe(0.3) and all(_balanced(b) for b in branches):
                self.features.add("alias")
                branches = [b + rng.choice(["", "", f" -> {rng.choice(['one', 'two', 'e'])}"]) for b in branches]
            text = (rng.choice([" | ", "\n    | "]) if all(map(_balanced, branches)) else " | ").join(branches)
        prefix = rng.choice(["", "", "", "", "?", "!", "?!", "!?"])
        if name.startswith("_"):
            prefix = prefix.replace("?", "")
        if prefix:
            self.features.add("rule prefix")
        priority = ""
        if self.maybe(0.1):
            priority = self.note("rule priority", f".{rng.choice([-1, 1, 2, 3])}")
        return f"{prefix}{name}{priority}: {text}"

    def template_rules(self) -> list[str]:
        lines = []
        if self.maybe(0.15):
            self.templates["_sep"] = 2
            lines.append(
                self.rng.choice(
                    [
                        "_sep{p, q}: p (q p)*",
                        "_sep{p, q}: p | _sep{p, q} q p",
                        "_sep{p, q}: [p (q p)*]",
                        "_sep{p, q}: p | p q _sep{p, q}",
                    ]
                )
            )
        if self.maybe(0.1):
            self.templates["many"] = 1
            lines.append(
                self.rng.choice(["many{p}: p+", "many{p}: p many{p} |", "many{p}: many{p} p | p", "?many{p}: p p"])
            )
        return lines

    # -- whole grammars -------------------------------------------------------------------------------------------

    def case(self) -> Case:
        if self.tame and self.maybe(0.05):
            return indented(self.rng, self.lexer)
        if self.maybe(0.04):
            flags = [re.I, re.I, re.S, re.M, re.X, re.A, re.I | re.S]
            self.flags = int(self.rng.choice(flags))
            self.features.add("g_regex_flags")
        lines = self.imports()
        lines += [self.terminal() for _ in range(self.rng.choice([0, 1, 2, 2, 3, 3, 4]))]
        names = self.rng.sample(RULES, self.rng.choice([0, 1, 1, 2, 2, 3]))
        self.rules = ["start", *names] if not self.tame or self.maybe(0.4) else list(names) or ["start"]
        lines += self.template_rules()
        body: str | None = None
        if self.maybe(0.35):
            shape = self.rng.choice(TAME if self.tame and self.maybe(0.8) else SHAPES)
            body, more = shape(self)
            lines += more
            names = [n for n in names if not any(re.match(rf"[?!]*{n}[.:]", line) for line in more)]
        if self.tame:  # rules refer to later ones only, most of the time
            for k, name in enumerate(names):
                if self.maybe(0.8):
                    self.rules = names[k + 1 :] or [name]
                lines.append(self.rule(name))
            self.rules = names or ["start"]
        else:
            lines += [self.rule(name) for name in names]
        lines.append(self.rule("start", body))
        lines += self.changes(names)
        if self.maybe(0.4):
            self.features.add("%ignore")
            lines += self.ignored()
        if self.maybe(0.02):
            self.features.add("%declare")
            lines.append("%declare DECLARED")
            if self.maybe(0.5):
                lines.append("%extend start: DECLARED")
        start = "start"
        if names and self.maybe(0.06):
            self.features.add("start")
            start = self.rng.choice(names)
        return Case(self.text(lines), self.letters, self.lexer, start, self.flags, None, frozenset(self.features))

    def changes(self, names: list[str]) -> Iterable[str]:
        """%extend and %override of what is defined above."""
        if self.maybe(0.05) and self.terminals:
            self.features.add("%extend")
            yield f"%extend {self.rng.choice(self.terminals)}: {self.string()}"
        if self.maybe(0.04):
            self.features.add("%extend")
            yield f"%extend {self.rng.choice(['start', *names])}: {self.sequence(1)}"
        if self.maybe(0.04) and self.terminals:
            self.features.add("%override")
            yield f"%override {self.rng.choice(self.terminals)}: {self.regex()}"
        if self.maybe(0.02) and names:
            self.features.add("%override")
            yield f"%override {self.rng.choice(names)}: {self.alternatives(1)}"

    def text(self, lines: list[str]) -> str:
        """The grammar's text; the order of the definitions, comments and line ends do not matter to Lark."""
        rng = self.rng
        fixed = [line for line in lines if line.startswith(("%extend", "%override"))]
        free = [line for line in lines if line not in fixed]
        if self.maybe(0.4):
            rng.shuffle(free)
        if self.maybe(0.1):
            free.insert(rng.randrange(len(free) + 1), rng.choice(["// a comment", "", "# another: one"]))
        text = "\n".join(free + fixed)
        if self.maybe(0.03):
            self.features.add("edited grammar")
            at = rng.randrange(len(text))
            new = rng.choice(['"', "/", "|", "(", ")", "~", ":", "a", "B", ".", "->", "%", "{", "\\", " ", "\n", "?"])
            text = text[:at] + (new if self.maybe(0.6) else "") + text[at + self.maybe(0.5) :]
        return text + rng.choice(["", "\n", "\n\n"])


def _balanced(text: str) -> bool:
    """Is this a whole alternative (the split at `|` may have cut groups, strings and regexes)?"""
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}")) and not set(text) & set("/\"'\\")


Shape = Callable[[GrammarMaker], tuple[str, list[str]]]


def _keywords(maker: GrammarMaker) -> tuple[str, list[str]]:
    """Strings that an identifier's regex matches as well."""
    rng = maker.rng
    words = [maker.word(2) for _ in range(2)]
    some = "".join(c for c in maker.letters if c not in '\n"\\/-+. ') or "a"
    flag = rng.choice(["", "", "", "i"])
    count = rng.choice(["+", "+", "{1,2}", f"*?[{some}]"])
    lines = [f"NAME{rng.choice(['', '', '.1', '.-1'])}: /[{some}]{count}/{flag}"]
    if maker.maybe(0.5):
        lines.append(f"KEY{rng.choice(['', '', '.1'])}: {quoted(words[0])}{rng.choice(['', '', 'i'])}")
    first = "KEY" if len(lines) > 1 else quoted(words[0])
    maker.features.add("keywords")
    maker.terminals.append("NAME")
    bodies = [
        f"({first} | NAME | {quoted(words[1])})+",
        f"{first} NAME | NAME {quoted(words[1])}",
        f"NAME {first} | {first} {maker.hole()}",
        f"{first}~1..2 | NAME",
    ]
    return rng.choice(bodies), lines


def _skeleton(feature: str, *bodies: str) -> Shape:
    """A start rule, and lines behind ``;``, with @ for each hole."""

    def shape(maker: GrammarMaker) -> tuple[str, list[str]]:
        text = re.sub("@", lambda _: maker.hole(), maker.rng.choice(bodies))
        body, *lines = text.split(";")
        maker.features.add(feature)
        return body, [line.strip() for line in lines]

    return shape


TAME: list[Shape] = [
    _keywords,
    _keywords,
    _skeleton("left recursion", "start @ | @", "e; e: e @ @ | @", "start (@ | @) |", "l; l: l @ | m; m: m @ @ | @"),
    _skeleton("right recursion", "@ start | @", "@ start |", "e; e: @ e @? | @", "@ e; e: @ start | @ e |"),
    _skeleton("nesting", "@ start @ | @", "@ start? @", "@ (start @)* @", "e*; e: @ e* @ | @"),
    _skeleton("shift over reduce", "@ start [@ start] | @", "@ a* @ | @; a: @", "a @ | @ @; a: @", "x+ @; x: @+"),
    _skeleton("nullable", "a b a; a: @ |; b: @?", "a a @; a: [@]", "@? @? @?", "a*; a: @ b; b: @ |"),
]
SHAPES: list[Shape] = [
    *TAME,
    _skeleton(
        "ambiguous", "start start | @", "start @ start | @", "start start | @ |", "(@ | @ @)+", "a | b; a: @; b: @"
    ),
    _skeleton("hidden recursion", "a start @ | @; a: @ |", "a start | @; a: |", "a; a: b a c | @; b: |; c: @ |"),
    _skeleton("cyclic", "start | @", "a; a: b | @; b: a |", "start? @?", "a; a: a a | @ |", "(start | @)* @"),
    _skeleton("palindrome", "@ start @ | @ start @ |", "a; a: @ a a | @", "@ start @ | start start |"),
    _skeleton("equal rules", "a @ | b @ @; a: x; b: x; x: @", "a | b; a.2: @+; b: (@ | @)+", "(a | b)*; a: @; b: @ @"),
]


def indented(rng: random.Random, lexer: str) -> Case:
    """A grammar with an indenter."""
    space = rng.choice([" ", " ", " ", "\t"])
    white = {" ": rng.choice([" ", " ", r"\t "]), "\t": r"\t"}[space]
    newline = rng.choice([rf"/\n[{white}]*/", rf"/(\n[{white}]*)+/", rf"/\n[{white}]*/+", rf"/\n+[{white}]*/"])
    opening = rng.choice(["", "", ":", "()"])
    simple = rng.choice(['"a" _NL', '"a"+ _NL', '"a" _NL+', "A _NL", "A? _NL"])
    block = rng.choice(["_NL _INDENT stmt+ _DEDENT", "_NL+ _INDENT stmt _DEDENT", "_NL _INDENT (stmt | _NL)+ _DEDENT"])
    if opening == "()":
        simple = rng.choice(['"a" ["(" "a"* ")"] _NL', '"a" "(" ("a" | "(" ")")* ")" _NL', '("a" | "(" | ")")+ _NL'])
    blocks = [f'"a" {quoted(opening) if opening == ":" else ""} {block}']
    if rng.random() < 0.2:
        blocks.append(rng.choice(["stmt _INDENT stmt _DEDENT", '"a" "a" _NL', "_INDENT _DEDENT"]))
    start = rng.choice(["_NL? stmt+", "(_NL | stmt)*", "stmt+", "stmt [_INDENT stmt _DEDENT]", "stmt* _NL?"])
    if rng.random() < 0.15:  # the text may end within blocks
        start = rng.choice(
            ['stmt* last?\nlast: "a" | "a" _NL _INDENT stmt* last _DEDENT', "stmt* (A | A _NL _INDENT A _DEDENT)"]
        )
    lines = [
        "%declare _INDENT _DEDENT",
        f"_NL: {newline}",
        rng.choice(["A: /a+/", 'A: "a"', "A: /a(?!a)|a/"]) if "A" in simple + start else "",
        f"stmt: {' | '.join([simple, *blocks])}",
        f"start: {start}",
    ]
    if rng.random() < 0.3:
        ignored = [
            '%ignore " "',
            r"%ignore /[ \t]+/",
            r"%ignore /a\n/",
            r"%ignore /\n(?=\n)/",
            "%ignore /#/",
            "%ignore /aa/",
        ]
        lines.append(rng.choice(ignored))
    left, right = (("LPAR",), ("RPAR",)) if opening == "()" else ((), ())
    indentation = Indentation("_NL", "_INDENT", "_DEDENT", left, right, rng.choice([1, 2, 8]))
    text = "\n".join(line for line in lines if line) + "\n"
    letters = "a\n" + space + opening + ("#" if "#" in text else "")
    return Case(text, letters, lexer, "start", 0, indentation, frozenset({"indentation"}))


def case_of(seed: int, index: int, lexer: str = "all", loads: Callable[[Case], bool] | None = None) -> Case:
    """The case of this number.

    Args:
        lexer: one of `LEXERS`, or "all": any of them, or "indented": LALR with an indenter.
        loads: says whether lark takes a case; most of those that it refuses are then drawn again.
    """
    rng = random.Random(f"grammar {seed} {index} {lexer}")

    def drawn() -> Case:
        if lexer == "indented":
            return indented(rng, rng.choice(LALR))
        return GrammarMaker(rng, chosen).case()

    chosen = rng.choices(LEXERS, (5, 2, 1, 3, 2, 2))[0] if lexer == "all" else lexer
    case = drawn()
    for _ in range(6):
        if loads is None or rng.random() < 0.1 or loads(case):
            break
        case = drawn()
    return case
