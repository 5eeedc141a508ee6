"""EBNF into Lark: what is written, what is refused, and that the language stays what it was.

The oracle for languages is a recogniser of the EBNF as the generator made it, before it was ever a text: for each rule
the set of spans of a text that it derives, grown until nothing is added. The Lark grammar is judged twice: by Lark's
Earley parser, and by the same growing of spans over the rules and terminals that Lark makes of it.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
import warnings
from dataclasses import dataclass

import lark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outlines_core as oc
from outlines_core.grammar import from_ebnf
from tests.strategies import scaled


def load(grammar: str, start: str = "start") -> lark.Lark:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a class that `re` finds ambiguous
        return lark.Lark(
            grammar,
            parser="earley",
            lexer="dynamic_complete",
            start=start,
            ambiguity="forest",
            maybe_placeholders=False,
        )


def parses(loaded: lark.Lark, text: str) -> bool:
    try:
        loaded.parse(text)
    except lark.exceptions.UnexpectedInput:
        return False
    return True


def language(ebnf: str, alphabet: str, longest: int, root: str = "root") -> set[str]:
    loaded = load(from_ebnf(ebnf, root=root))
    texts = ("".join(w) for n in range(longest + 1) for w in itertools.product(alphabet, repeat=n))
    return {text for text in texts if parses(loaded, text)}


# -- spans ------------------------------------------------------------------------------------------------------------


def compose(left, right):
    starts = {}
    for i, j in right:
        starts.setdefault(i, set()).add(j)
    return {(i, k) for i, j in left for k in starts.get(j, ())}


@dataclass(frozen=True)
class Plain:
    """A literal."""

    text: str

    def spans(self, text, rules):
        n = len(self.text)
        return {(i, i + n) for i in range(len(text) - n + 1) if text[i : i + n] == self.text}


@dataclass(frozen=True)
class Class:
    chars: str
    is_negated: bool = False

    def spans(self, text, rules):
        return {(i, i + 1) for i, c in enumerate(text) if (c in self.chars) != self.is_negated}


@dataclass(frozen=True)
class Name:
    name: str

    def spans(self, text, rules):
        return rules[self.name]


@dataclass(frozen=True)
class Concat:
    parts: tuple

    def spans(self, text, rules):
        found = {(i, i) for i in range(len(text) + 1)}
        for part in self.parts:
            found = compose(found, part.spans(text, rules))
        return found


@dataclass(frozen=True)
class Either:
    parts: tuple

    def spans(self, text, rules):
        return set().union(*(part.spans(text, rules) for part in self.parts))


@dataclass(frozen=True)
class Many:
    part: object
    low: int
    high: int | None

    def spans(self, text, rules):
        once = self.part.spans(text, rules)
        exactly = {(i, i) for i in range(len(text) + 1)}
        for _ in range(self.low):
            exactly = compose(exactly, once)
        found = set(exactly)
        for _ in itertools.count() if self.high is None else range(self.high - self.low):
            exactly = compose(exactly, once)
            if exactly <= found:
                break
            found |= exactly
        return found


def derives(rules, root, text) -> bool:
    """Does `root` derive the whole of `text`?"""
    spans = {name: set() for name in rules}
    while True:
        grown = {name: body.spans(text, spans) for name, body in rules.items()}
        if grown == spans:
            return (0, len(text)) in spans[root]
        spans = grown


@dataclass(frozen=True)
class Pattern:
    """A terminal of Lark's."""

    pattern: re.Pattern

    def spans(self, text, rules):
        ends = range(len(text) + 1)
        return {(i, j) for i in ends for j in ends[i:] if self.pattern.fullmatch(text[i:j])}


def rules_of(loaded: lark.Lark):
    """Lark's rules in the terms of `derives`."""
    terminals = {t.name: Pattern(re.compile(t.pattern.to_regexp())) for t in loaded.terminals}
    alternatives = {"start": []}
    for rule in loaded.rules:
        parts = (terminals[s.name] if s.is_term else Name(s.name) for s in rule.expansion)
        alternatives.setdefault(rule.origin.name, []).append(Concat(tuple(parts)))
        for symbol in rule.expansion:
            if not symbol.is_term:
                alternatives.setdefault(symbol.name, [])
    return {name: Either(tuple(bodies)) for name, bodies in alternatives.items()}


# -- random grammars --------------------------------------------------------------------------------------------------

NAMES = ["root", "Root", "a-b", "a_b", "A-B", "start", "x", "root__1", "a_b_2", "_x", "r1"]
CHARS = "ab\"'\\]-^/\n é😀[|&~#.\0"
BLANKS = st.sampled_from([" ", "  ", "\n", " # no\n ", "\t", "\r\n"])


def nodes(names):
    leaves = st.one_of(
        st.text(CHARS, max_size=3).map(Plain),
        st.text("ab", min_size=1, max_size=2).map(Plain),
        st.builds(Class, st.text(CHARS, min_size=1, max_size=3), st.booleans()),
        st.just(Class("", is_negated=True)),
        st.sampled_from(names).map(Name),
    )
    counts = st.sampled_from([(0, None), (1, None), (0, 1), (2, 2), (0, 0), (1, 3), (2, None), (3, None), (0, 60)])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda parts: Concat(tuple(parts))),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: Either(tuple(parts))),
            st.tuples(inner, counts).map(lambda two: Many(two[0], *two[1])),
        ),
        max_leaves=8,
    )


@st.composite
def grammars(draw):
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    return {name: draw(nodes(names)) for name in names}


class Printer:
    """A grammar as a text, in one of the ways in which it can be written."""

    def __init__(self, draw) -> None:
        self.draw = draw

    def pick(self, *options: str) -> str:
        return self.draw(st.sampled_from(options))

    def char(self, c: str, special: str) -> str:
        escapes = [f"\\U{ord(c):08x}"]
        escapes += [f"\\u{ord(c):04X}"] if ord(c) < 0x10000 else []
        escapes += [f"\\x{ord(c):02x}"] if c in '"\\]-^\n\0' and c not in "ab" else []
        escapes += [{"\n": "\\n", "\0": "\\0"}.get(c, c if c not in special else "\\" + c)] * 3
        return self.pick(*escapes)

    def string(self, text: str, special: str) -> str:
        shown = ""
        for c in text:
            char = self.char(c, special)
            if re.search(r"\\(x..|0)$", shown) and char in "abcdef":
                char = f"\\U{ord(c):08x}"  # would be read as a further digit
            shown += char
        return shown

    def node(self, node, level: int) -> str:
        """`level`: 0 alternatives, 1 a sequence, 2 what can be repeated."""
        if isinstance(node, Plain):
            return '"' + self.string(node.text, '"\\') + '"'
        if isinstance(node, Class):
            if not node.chars:
                return self.pick(" . ", "[^]")
            return "[" + "^" * node.is_negated + self.string(node.chars, "\\]-^") + "]"
        if isinstance(node, Name):
            return f" {node.name}{self.draw(BLANKS)}"
        if isinstance(node, Many):
            inner, low, high = self.node(node.part, 2), node.low, node.high
            braces = f"{{{low}}}" if low == high else f"{{{low} , {'' if high is None else high}}}"
            short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high), braces)
            return inner + self.draw(BLANKS) + self.pick(braces, short)
        if isinstance(node, Concat):
            shown = self.draw(BLANKS).join(self.node(part, 2 if level else 1) for part in node.parts)
            return f"({shown})" if level == 2 or self.draw(st.booleans()) else shown
        shown = f"{self.draw(BLANKS)}|{self.draw(BLANKS)}".join(self.node(part, 1) for part in node.parts)
        return f"({shown})" if level else shown


@settings(max_examples=scaled(100), deadline=None)
@given(st.data(), grammars())
def test_the_language_is_kept(data, grammar) -> None:
    printer = Printer(data.draw)
    ebnf = "\n".join(f"{name} ::={data.draw(BLANKS)}{printer.node(body, 0)}" for name, body in grammar.items())
    root = next(iter(grammar))
    loaded = load(from_ebnf(ebnf, root=root))
    by_lark = rules_of(loaded)
    alphabet = data.draw(st.lists(st.sampled_from(CHARS), min_size=2, max_size=2, unique=True)) + ["a"]
    texts = ["".join(w) for n in range(3) for w in itertools.product(alphabet, repeat=n)]
    texts += data.draw(st.lists(st.text(alphabet, min_size=3, max_size=6), max_size=6))
    for text in texts:
        expected = derives(grammar, root, text)
        assert derives(by_lark, "start", text) == expected, (ebnf, text)
        assert parses(loaded, text) == expected, (ebnf, text)


def test_every_character_survives() -> None:
    """In literals beside each other, and in classes as members and as ends of ranges."""
    chars = sorted({*map(chr, range(0x180)), *"\u2028\ud7ff\ue000\ufffd\uffff\U00010000😀\U0010ffff你"})
    for step in range(1, 4):
        text = "".join(chars[(k * step) % len(chars)] for k in range(len(chars))) + '\\"\\\\""\'\\n/\\/'
        shown = "".join(f"\\U{ord(c):08x}" for c in text)
        (terminal,) = load(from_ebnf(f'root ::= "{shown}"')).terminals
        assert terminal.pattern.value == text
    ends = sorted({*chars[1::90], *"\"\\/]^-[&|~#' \n", "\ud7ff", "\ue000", "😀"})
    classes = [
        (sign, low, dash, high)
        for low, high in itertools.combinations(ends, 2)
        for dash in ("", "-")
        for sign in ("", "^")
    ]
    ebnf = "root ::= " + " | ".join(f"c{k}" for k in range(len(classes)))
    for k, (sign, low, dash, high) in enumerate(classes):
        ebnf += f"\nc{k} ::= [{sign}\\U{ord(low):08x}{dash}\\U{ord(high):08x}]"
    loaded = load(from_ebnf(ebnf))
    patterns = {t.name: re.compile(t.pattern.to_regexp()) for t in loaded.terminals}
    of_rule = {rule.origin.name: rule.expansion[0].name for rule in loaded.rules}
    for k, (sign, low, dash, high) in enumerate(classes):
        codes = [ord(c) + d for c in (low, high) for d in (-1, 0, 1)]
        for c in (*chars[::60], *(chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF)):
            is_in = low <= c <= high if dash else c in (low, high)
            assert bool(patterns[of_rule[f"c{k}"]].fullmatch(c)) == (is_in != bool(sign)), classes[k]


# -- what is written --------------------------------------------------------------------------------------------------


def test_a_grammar_is_readable() -> None:
    ebnf = r"""
    root ::= object ws      # a comment
    object ::= "{" (pair ("," pair)*)? "}" |
        "null"
    pair ::= [^"\\\x00-\x1F]+ ":" hex-digit{4} ws? ws?
    hex-digit ::= [0-9a-fA-F]
    ws ::= [ \t\n]*
    """
    assert from_ebnf(ebnf) == (
        "start: root\n"
        "// root ::= object ws\n"
        "root: object ws\n"
        '// object ::= "{" (pair ("," pair)*)? "}" | "null"\n'
        'object: "{" object__1? "}"\n'
        '    | "null"\n'
        "object__1: pair object__2*\n"
        'object__2: "," pair\n'
        '// pair ::= [^"\\\\\\x00-\\x1F]+ ":" hex-digit{4} ws? ws?\n'
        r'pair: /[^\x00-\x1f"\\]/+ ":" hex_digit~4 pair__1 pair__1' + "\n"
        "// hex-digit ::= [0-9a-fA-F]\n"
        "hex_digit: /[0-9A-Fa-f]/\n"
        "// ws ::= [ \\t\\n]*\n"
        r"ws: /[\t\n ]/*" + "\n"
        "pair__1: ws?\n"
    )


def test_names_stay_distinct_and_plain_ones_stay() -> None:
    names = ["a-b", "a.b", "A-b", "a_b", "a_b_2", "_a_b", "start", "Start", "1", "-", "--", "r", "a-b__1", "a_b__1"]
    ebnf = "\n".join(f'{name} ::= ("{k}" | "x" "y") "."' for k, name in enumerate(names))
    for root in names:
        out = from_ebnf(ebnf, root=root)
        own = [line.partition(":")[0] for line in out.splitlines() if re.match(r"[a-z_0-9]+:", line)]
        assert len(own) == len(set(own))
        for name in ("a_b", "a_b_2", "r", "a_b__1"):
            assert f"// {name} ::=" in out
            assert re.search(rf"^{name}: ", out, re.MULTILINE)
        loaded = load(out)
        for k in range(len(names)):
            assert parses(loaded, f"{k}.") == (k == names.index(root))


def test_the_start_rule_is_start() -> None:
    assert language('start ::= "a"\nroot ::= "b"', "ab", 2) == {"b"}
    assert language('start ::= "a" | root "b"\nroot ::= "b"', "ab", 2, root="start") == {"a", "bb"}
    assert from_ebnf('start ::= "a"', root="start") == '// start ::= "a"\nstart: "a"\n'
    assert load(from_ebnf('root ::= "a"'), start="root").parse("a")


def test_comments_cannot_break_out() -> None:
    out = from_ebnf('root ::= "a\\n" # \u2028 b\n  "b\nc//\x85\x0c"' + " " * 200 + "| " + '"x" ' * 50)
    assert '// root ::= "a\\n" # b "b c//' in out
    assert len(max((line for line in out.splitlines() if line.startswith("//")), key=len)) <= 103
    assert parses(load(out), "a\nb\nc//\x85\x0c")


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ebnf", "alphabet", "expected"),
    [
        ('root::="a""b"|"c"', "abc", {"ab", "c"}),
        ('root ::=\n  "a"\n  "b"\n\n\n|\n"c"', "abc", {"ab", "c"}),  # xgrammar: line breaks are blanks
        ('\ufeffroot ::= "a"'[1:] + "\r\n", "ab", {"a"}),
        ('root ::= (\n"a" # (\n| x\n)\rx ::= "b"#', "ab", {"a", "b"}),
        ('root ::= x # x ::= "c"\nx\n::=\n"a"', "abc", {"a"}),
        ('root ::= | "a"', "ab", {"", "a"}),
        ('root ::= "a" | ', "ab", {"", "a"}),
        ('root ::= "a" ("" | ) () ("b" | ())', "ab", {"a", "ab"}),
        ("root ::=", "a", {""}),
        ('root ::= x x\nx ::= # nothing\ny ::= "a"', "a", {""}),
        ('root ::= ""', "a", {""}),
        ('root ::= "" *', "a", {""}),
        ('root ::= "a" {2} | "b" { 1 , 2 } | "c" {2,}', "abc", {"aa", "b", "bb", "cc", "ccc"}),
        ('root ::= "b" "a"{0} | "a"{0,1}', "ab", {"b", "", "a"}),
        ('root ::= "ab"{1, -1}', "ab", {"ab"}),  # as xgrammar prints it
        ('root ::= "a"{2}?', "ab", {"", "aa"}),
        ('root ::= "b"+?{2}', "ab", {"", "b", "bb", "bbb"}),
        ('root ::= "a"* | "a"+ | "a" | "a"{1,2} | "a" "a"', "a", {"", "a", "aa", "aaa"}),
        ("root ::= [ab] [^a]", "abc", {"ab", "ac", "bb", "bc"}),
        ("root ::= [a-]", "a-b", {"a", "-"}),
        ("root ::= [-a]", "a-b", {"a", "-"}),
        ("root ::= [+--]", "+,-.", {"+", ",", "-"}),
        ("root ::= [a-b-c]", "abc-", {"a", "b", "-", "c"}),
        (r"root ::= [\--/]", "-./0", {"-", ".", "/"}),
        (r"root ::= [\^a^]", "^ab", {"^", "a"}),
        (r"root ::= [^\^]", "^a", {"a"}),
        (r"root ::= [\]\[]", "[]a", {"[", "]"}),
        ("root ::= [^]", "a\n", {"a", "\n"}),
        ('root ::= ["+"|"-"]', '"+|-a', {'"', "+", "|", "-"} - {"-"}),
        ("root ::= [a\nb]", "ab\n", {"a", "b", "\n"}),  # llama.cpp
        ('root ::= "a\nb"', "ab\n", {"a\nb"}),
        ("root ::= .", "a\n😀", {"a", "\n", "😀"}),
        ('root ::= "a".?', "ab", {"a", "aa", "ab"}),
        ("root ::= x.x\nx ::= [a]", "ab", {"aaa", "aba"}),  # llama.cpp: no dots in names
        ("root ::= ..", "a", {"aa"}),
        ('root ::= x.x\nx.x ::= "a"\nx ::= "b"', "ab", {"a"}),  # xgrammar: dots in names
        ('root ::= x.x .\nx.x ::= "a"', "ab", {"aa", "ab"}),
        (r'root ::= "\x61\u0062\U00000063"', "abc", {"abc"}),
        (r'root ::= "\x61" | "\x9" | "\"" | "\\" | "\/" | "\[" | "\-"', 'a\t"\\/[-', set('a\t"\\/[-')),
        (r'root ::= "\n" | "\e" | "\0" | "\b" | "\v"', "\n\x1b\0\b\v", set("\n\x1b\0\b\v")),
        (r"root ::= [\$\.\*\n\u00e9]", "$.*\né", set("$.*\né")),
        ('root ::= root "a" | "b"', "ab", {"b", "ba", "baa"}),
        ('root ::= root | ""', "ab", {""}),
        ("root ::= root", "ab", set()),
        ('root ::= "a" root', "ab", set()),
        ('root ::= ("a"* "b"*)* "c"?', "abc", None),
        ('root ::= Substring("a", "bb", "", "a")', "ab", {"", "a", "bb", "abb", "bba"}),
        ('root ::= Substring("", "")', "ab", {""}),
        ('root ::= true Regex\ntrue ::= "a"\nRegex ::= "b"', "ab", {"ab"}),
    ],
)
def test_the_formats(ebnf: str, alphabet: str, expected: set[str] | None) -> None:
    if expected is None:
        texts = ("".join(w) for n in range(4) for w in itertools.product(alphabet, repeat=n))
        expected = {text for text in texts if re.fullmatch("[ab]*c?", text)}
    assert language(ebnf, alphabet, 3) == expected


def test_surrogates_are_no_characters() -> None:
    (terminal,) = load(from_ebnf(r"root ::= [\uD000-\uDABC\uE000]")).terminals
    assert terminal.pattern.value == "[\ud000-\ud7ff\ue000]"
    (terminal,) = load(from_ebnf(r"root ::= [^\uD800-\uDFFF]")).terminals
    assert terminal.pattern.value == r"[\s\S]"


# -- what an input can cost -------------------------------------------------------------------------------------------


def test_repetitions_do_not_multiply() -> None:
    ebnf = (
        'root ::= x{0,1000} "," ([a-z]{1,40} x?){3,2000} x{100000,} "."\nx ::= "a"? "b"? "c"? ' + '("d" | "e")* ' * 40
    )
    out = from_ebnf(ebnf)
    assert len(out) < 2 * len(ebnf)
    assert len(load(out).rules) < 200


def test_counts_are_exact() -> None:
    for low, high in ((0, 70), (3, 57), (60, 60), (55, None)):
        loaded = load(from_ebnf(f"root ::= [a]{{{low},{'' if high is None else high}}}"))
        for n in (0, 1, 2, 3, 4, 54, 55, 56, 57, 58, 59, 60, 61, 69, 70, 71):
            assert parses(loaded, "a" * n) == (low <= n and (high is None or n <= high)), (low, high, n)


def test_depth_is_no_matter() -> None:
    def nested(depth: int) -> str:
        return "root ::= " + "(" * depth + '"a"' + ' "b" | "c")*' * depth

    assert from_ebnf(nested(5 * sys.getrecursionlimit())).count("*") > sys.getrecursionlimit()
    regex = "a"
    for _ in range(8):
        regex = f"(?:{regex}b|c)*"
    texts = ["a" + "b" * n + c for n in range(11) for c in ("", "c", "b", "a")] + ["", "b", "cbc", "abb", "cabc"]
    loaded = load(from_ebnf(nested(8)))
    assert [parses(loaded, text) for text in texts] == [bool(re.fullmatch(regex, text)) for text in texts]


def test_time_is_linear() -> None:
    def seconds(n: int) -> float:
        alternatives = " | ".join(f'("a{k}" | x)? [a-z]{{2,5}}' for k in range(n))
        chunks = ", ".join(['"ab"'] * n)
        ebnf = f"root ::= {alternatives}\nx ::= Substring({chunks}) " + ".x" * n
        began = time.perf_counter()
        from_ebnf(ebnf)
        return time.perf_counter() - began

    small = min(seconds(300) for _ in range(3))
    assert min(seconds(3000) for _ in range(3)) < 50 * small


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ebnf", "message"),
    [
        ('root ::= "a" ¦x', "'x' is not defined"),
        ('root ::= "a" ¦x-1 "b"', "'x-1' is not defined"),
        ("root ::= r.¦x.r\nr ::= .", "'x' is not defined"),
        ("root ::= ¦x.r\nr.x ::= .", "'x.r' is not defined"),
        ('root ::= "a"\n¦root ::= "b"', "defined twice, first in line 1"),
        ('¦rule ::= "a"', "there is no rule 'root' to start from (rules: rule)"),
        ("¦", "there is no rule 'root' to start from (rules: none)"),
        ('root ::= ("a" | ¦("b"', "this group is not closed"),
        ('root ::= "a" ¦("b"\nx ::= "c"', "this group is not closed"),
        ('root ::= "a"¦) "b"', "no group to close"),
        ('root ::= "a" ¦"b', "literal is not closed"),
        ('root ::= ¦"b\\"', "literal is not closed"),
        ("root ::= ¦[abc", "class is not closed"),
        ("root ::= ¦[abc\\]", "class is not closed"),
        ('root ::= "a" ¦x ::= "b"', "a line of its own"),
        ('root ::= "a"\nx ::= x ¦y ::= "b"', "a line of its own"),
        ('root ::= ¦* "a"', "* repeats what stands before it"),
        ('root ::= "a" | ¦{2}', "{ repeats what stands before it"),
        ('root ::= "a"{3,¦2}', "at most 2, but at least 3"),
        ('root ::= "a"{¦,2}', "expected the least number"),
        ('root ::= "a"{1,¦x}', "expected the greatest number"),
        ('root ::= "a"{1¦;2}', "';' means nothing here"),
        ('root ::= "a"{1 ¦2}', "expected }"),
        ('root ::= "a"{1¦', "expected }"),
        ('root ::= "a"{¦12345678901234567890}', "at most 9 digits"),
        ("root ::= [a¦z-b]", "runs backwards"),
        ("root ::= ¦[]", "no character is in this class"),
        (r"root ::= ¦[^\U00000000-\U0010FFFF]", "no character is in this class"),
        (r"root ::= ¦[\uD800]", "no character is in this class"),
        (r'root ::= "a¦\ud83d\ude00"', "a surrogate is no character"),
        (r'root ::= "ab¦\q"', r"\q is not complete, or no escape"),
        (r'root ::= "ab¦\."', r"\. is not complete, or no escape"),
        (r"root ::= [ab¦\d]", r"\d is not complete, or no escape"),
        (r'root ::= "¦\xg"', r"\x is not complete"),
        (r'root ::= "¦\u12"', r"\u is not complete"),
        (r'root ::= "¦\U00110000"', "no such character"),
        ("root ::= ¦'a'", "text stands in quotes"),
        ('root ::= "a" ¦, "b"', "',' means nothing here"),
        ('root ¦= "a"', "begins with the name of a rule"),
        ('¦"a" "b"', "begins with the name of a rule"),
        ('"a" ¦::= "b"', "follows the name of a rule"),
        ('¦::= "b"', "follows the name of a rule"),
        ('root ::= "a"\n("x") ¦::= "b"', "follows the name of a rule"),
        ('root ::= Substring("a" ¦"b")', "expected , or )"),
        ('root ::= Substring("a",¦)', "expected a text"),
        ("root ::= Substring(¦)", "expected a text"),
        ('root ::= Substring("a"¦', "expected , or )"),
    ],
)
def test_errors_point_at_their_place(ebnf: str, message: str) -> None:
    offset, source = ebnf.index("¦"), ebnf.replace("¦", "")
    with pytest.raises(oc.ConstraintSyntaxError) as caught:
        from_ebnf(source)
    assert message in str(caught.value)
    assert (caught.value.source, caught.value.offset) == (source, offset)


@pytest.mark.parametrize(
    ("ebnf", "feature"),
    [
        ('root ::= "a" ¦<[123]> "b"', "token reference"),
        ("root ::= ¦<think> .*", "token reference"),
        ("root ::= ¦!<[123]>*", "token reference"),
        ('root ::= "a" ¦(="b")', "lookahead assertion"),
        ('root ::= r\nr¦[lazy] ::= "b"', "rule option"),
        ('root ::= r\nr¦[max_tokens=10, capture="x"] ::= "b"', "rule option"),
        ('root¦[temperature=0.5] ::= "b"', "rule option"),
        ('root ::= ¦TagDispatch(("tag", r), loop_after_dispatch=false)\nr ::= "x"', "TagDispatch()"),
        ("root ::= ¦Token(1, 2)", "Token()"),
        ("root ::= ¦ExcludeToken(1)", "ExcludeToken()"),
        ("root ::= ¦TokenTagDispatch((1, r))\nr ::= .", "TokenTagDispatch()"),
        ('root ::= ¦Regex("a+", json_string=true)', "Regex()"),
        ('root ::= ¦Regex ("a")\nRegex ::= "b"', "Regex()"),
        ('root ::= Substring("a", ¦lazy=true)', "Substring() with options"),
        (r'root ::= "a¦\x41B"', r"\x with more than two digits"),
        (r"root ::= [¦\x041]", r"\x with more than two digits"),
    ],
)
def test_refusals_have_a_name_and_a_place(ebnf: str, feature: str) -> None:
    offset, source = ebnf.index("¦"), ebnf.replace("¦", "")
    with pytest.raises(oc.UnsupportedFeatureError) as caught:
        from_ebnf(source)
    assert (caught.value.feature, caught.value.path, caught.value.offset) == (feature, str(offset), offset)


@settings(max_examples=scaled(300), deadline=None)
@given(st.text(st.sampled_from('ar[](){}|*+?,.":=#\\^-<!01 \nx'), max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        out = from_ebnf("root ::= " + text)
    except (oc.ConstraintSyntaxError, oc.UnsupportedFeatureError):
        return
    load(out)
