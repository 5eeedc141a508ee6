"""The grammars that ship with the package, against independent judges: Python's parser, json, csv, SQLite, expat.

A judge and a grammar are compared on lists of texts, on random derivations of the grammar, and on derivations with a
few tokens or characters changed. Texts on which they may differ are those that the grammar's first comment names.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import random
import re
import sqlite3
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import lark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark.indenter import DedentError, PythonIndenter

from processors import grammars

NAMES = ["arithmetic", "c_expressions", "csv", "json", "python", "sqlite", "words", "xml"]


@cache
def parser(name: str) -> lark.Lark:
    """The grammar as lark loads it: with `strict`, it refuses conflicts and terminals that begin alike."""
    return lark.Lark(grammars.load(name), maybe_placeholders=False, strict=True, **grammars.options(name))


def accepts(name: str, text: str) -> bool:
    try:
        parser(name).parse(text)
    except (lark.UnexpectedInput, DedentError):
        return False
    return True


def texts_of(block: str) -> list[str]:
    """The texts of a block: on its lines, two spaces apart."""
    return [text for line in block.strip("\n").split("\n") for text in line.split("  ")]


class Sampler:
    """Random derivations of a grammar that lark has loaded.

    Args:
        examples: by terminal, texts to choose from or a function that makes one; strings stand for themselves.
        without: symbols that no derivation contains.
    """

    def __init__(
        self,
        name: str,
        examples: dict[str, list[str] | Callable[[random.Random], str]],
        *,
        start: str | None = None,
        without: tuple[str, ...] = (),
    ) -> None:
        loaded = parser(name)
        self.start, self.examples = start or loaded.options.start[0], examples
        self.patterns = {terminal.name: terminal.pattern for terminal in loaded.terminals}
        found: dict[str, list[list[tuple[str, bool]]]] = defaultdict(list)
        for rule in loaded.rules:
            symbols = [(symbol.name, symbol.is_term) for symbol in rule.expansion]
            if not any(symbol in without for symbol, _ in symbols):
                found[rule.origin.name].append(symbols)
        shortest: dict[str, float] = {}  # how many terminals the smallest derivation has, and 0.001 for each step of it
        improved = True
        while improved:
            improved = False
            for origin, expansions in found.items():
                best = min(self._size(symbols, shortest) for symbols in expansions)
                if best < shortest.get(origin, float("inf")):
                    shortest[origin], improved = best, True
        self.rules = {
            origin: sorted(((self._size(symbols, shortest), symbols) for symbols in expansions), key=lambda x: x[0])
            for origin, expansions in found.items()
        }
        self.n_used: Counter[tuple[str, int]] = Counter()  # what was used less is chosen more often

    @staticmethod
    def _size(symbols: list[tuple[str, bool]], shortest: dict[str, float]) -> float:
        return 0.001 + sum(1 if terminal else shortest.get(name, float("inf")) for name, terminal in symbols)

    def terminals(self, rng: random.Random, size: int) -> list[str]:
        """The names of a derivation's terminals, about `size` of them."""
        out: list[str] = []
        stack = [(self.start, False)]
        while stack:
            name, terminal = stack.pop()
            if terminal:
                out.append(name)
                continue
            rules = self.rules[name]
            room = max(size - len(out) - len(stack), rules[0][0])
            possible = [(name, i) for i, (cost, _) in enumerate(rules) if cost <= room]
            # From one level of precedence to the next far more often than not: there are seventeen of them in Python.
            steps = [rule for rule in possible if [terminal for _, terminal in rules[rule[1]][1]] == [False]]
            others = [rule for rule in possible if rule not in steps]
            group = steps if rng.random() * (8 * len(steps) + len(others)) < 8 * len(steps) else others
            chosen = rng.choices(group, [1 / (1 + self.n_used[rule]) for rule in group])[0]
            self.n_used[chosen] += 1
            stack.extend(reversed(rules[chosen[1]][1]))
        return out

    def text(self, name: str, rng: random.Random) -> str:
        example = self.examples.get(name)
        if example is None:
            assert self.patterns[name].type == "str", f"no example of {name}"
            return str(self.patterns[name].value)
        return example(rng) if callable(example) else rng.choice(example)

    def texts(self, rng: random.Random, size: int) -> list[str]:
        return [self.text(name, rng) for name in self.terminals(rng, size)]


def changed(parts: list[str], pool: list[str], rng: random.Random) -> list[str]:
    """One or two of the parts removed, doubled, exchanged, or replaced by one of `pool`."""
    out = list(parts)
    for _ in range(rng.randint(1, 2)):
        if not out:
            break
        i, j = rng.randrange(len(out)), rng.randrange(len(out))
        match rng.randrange(4):
            case 0:
                del out[i]
            case 1:
                out.insert(i, rng.choice(pool))
            case 2:
                out[i], out[j] = out[j], out[i]
            case _:
                out[i] = rng.choice(pool)
    return out


# ----------------------------------------------------------------------------------------------------------- the module


def test_list_is_sorted_and_complete():
    assert grammars.list() == NAMES
    assert grammars.list() == sorted(file.stem for file in Path(grammars.__file__).parent.glob("*.lark"))


def test_load_gives_the_text():
    assert grammars.load("json") == (Path(grammars.__file__).parent / "json.lark").read_text(encoding="utf-8")


def test_options_are_fresh_and_make_an_indenter_for_python_only():
    for name in NAMES:
        options = grammars.options(name)
        assert options["parser"] == "lalr"
        assert options["lexer"] == "contextual"
        assert ("postlex" in options) == (name == "python")
        options.clear()
    first, second = grammars.options("python"), grammars.options("python")
    assert first["start"] == "file_input"
    assert isinstance(first["postlex"], PythonIndenter)
    assert first["postlex"] is not second["postlex"]


@pytest.mark.parametrize("function", [grammars.load, grammars.options])
def test_unknown_names_are_refused_with_what_there_is(function):
    with pytest.raises(
        ValueError, match=r"no grammar is named 'pyton': did you mean 'python'\? there are arithmetic, "
    ):
        function("pyton")
    with pytest.raises(ValueError, match=r"no grammar is named '\.\./data': there are arithmetic, .*, xml$"):
        function("../data")


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is_and_what_it_leaves_out(name):
    comment = re.match(r"(//.*\n)+", grammars.load(name)).group()
    assert "Left out:" in comment or "Refused, though CPython accepts it:" in comment


@pytest.mark.parametrize("name", NAMES)
def test_has_no_conflicts(name):
    assert parser(name).rules


# ----------------------------------------------------------------------------------------------------------------- JSON


def read_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80)
@given(value=VALUES, indent=st.sampled_from([None, 0, 2, "\t"]), ascii_only=st.booleans())
def test_json_accepts_what_json_writes(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert accepts("json", text)
    assert accepts("json", f" \r\n\t{text}\t\n")


@settings(max_examples=250)
@given(st.text(alphabet='{}[]:,"\\/ \t\n\r\x00\x0b\x1f\x7f\x85\xa0\u2028aAbfnrtux0123456789+-.eElsé😀', max_size=12))
def test_json_is_what_json_reads(text):
    assert accepts("json", text) == read_json(text)


def test_json_derivations_changed_are_judged_as_json_judges_them():
    rng = random.Random(1)
    examples = {
        "STRING": ['"a"', '""', r'"\u00e9\n"', '"é"', r'"\""'],
        "NUMBER": ["0", "-1", "1.5", "1e5", "-0.0E-7", "10"],
    }
    sampler = Sampler("json", examples)
    pool = [
        *'{}[],:01-.e"\\',
        " ",
        "\n",
        "\x0c",
        "true",
        "nul",
        "NaN",
        "Infinity",
        "01",
        "+1",
        "1.",
        ".5",
        '"\t"',
        r'"\x"',
    ]
    n_accepted = 0
    for _ in range(500):
        parts = sampler.texts(rng, rng.randint(1, 40))
        assert read_json(" ".join(parts))
        assert accepts("json", " ".join(parts))
        text = "".join(changed(parts, pool, rng))
        assert accepts("json", text) == read_json(text), text
        n_accepted += accepts("json", text)
    assert n_accepted > 50


# ----------------------------------------------------------------------------------------------------------- arithmetic


def as_ast(node: lark.Tree | lark.Token) -> str:
    """A tree of the grammar, written as `ast.dump` writes Python's."""
    if isinstance(node, lark.Token):
        return ast.dump(ast.parse(str(node), mode="eval").body)
    binary = {"add": "Add", "subtract": "Sub", "multiply": "Mult", "divide": "Div", "modulo": "Mod", "power": "Pow"}
    parts = [as_ast(child) for child in node.children]
    match str(node.data):
        case "start":
            return parts[0]
        case "negate":
            return f"UnaryOp(op=USub(), operand={parts[0]})"
        case "call":
            return f"Call(func={parts[0]}, args=[{', '.join(parts[1:])}], keywords=[])"
        case data:
            return f"BinOp(left={parts[0]}, op={binary[data]}(), right={parts[1]})"


def test_arithmetic_has_the_trees_of_python():
    rng = random.Random(2)
    sampler = Sampler("arithmetic", {"NUMBER": ["0", "12", "1.5", "2e3", "1E-5"], "NAME": ["x", "_y1", "match", "iff"]})
    for _ in range(400):
        parts = sampler.texts(rng, rng.randint(1, 40))
        text = rng.choice(["", " ", "\t"]).join(parts) + rng.choice(["", " "])
        call = re.compile(r"(?<=keywords=)(?=\))")  # Python 3.13 leaves empty lists out
        expected = ast.dump(ast.parse(text, mode="eval").body)
        assert accepts("arithmetic", f" \t{text}")  # as `eval`
        got = as_ast(parser("arithmetic").parse(text))
        assert call.sub("[]", got).replace(", args=[]", "").replace(", keywords=[]", "") == expected.replace(
            ", args=[]", ""
        ).replace(", keywords=[]", ""), text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1\n",
        "1 +",
        "+1",
        "1 2",
        "2x",
        "x y",
        "01",
        "1.",
        ".5",
        "1_0",
        "0x1",
        "1e",
        "2(3)",
        "f(1,)",
        "f(,)",
        "()",
    ]
    + ["if", "lambda", "not x", "x = 1", "x, y", "1 // 2", "1 *** 2", "a.b", "a[0]", "(1", "1)", "a if b else c", "é"],
)
def test_arithmetic_refuses(text):
    assert not accepts("arithmetic", text)


# ------------------------------------------------------------------------------------------------------------------ CSV


def rows(text: str) -> list[list[str]]:
    """The fields as the grammar has them, unquoted."""
    out = []
    for record in parser("csv").parse(text).children:
        fields = ["".join(map(str, field.children)) for field in record.children]
        out.append([f[1:-1].replace('""', '"') if f.startswith('"') else f for f in fields])
    return out


def test_csv_derivations_are_read_back_by_csv():
    rng = random.Random(3)
    examples = {
        "TEXT": ["a", " b ", "1.5", "é'; ", "x=\u2028"],
        "QUOTED": ['""', '"a,b"', '"a""b"', '"\r\n"', '" \n\t"', '""""'],
    }
    sampler = Sampler("csv", examples)
    for _ in range(400):
        text = "".join(sampler.texts(rng, rng.randint(1, 40)))
        assert rows(text) == list(csv.reader(io.StringIO(text, newline=""), strict=True)), text


@settings(max_examples=80)
@given(
    st.lists(
        st.lists(st.text(alphabet='ab ,"\n\ré\u2028', max_size=4), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    st.sampled_from(["\r\n", "\n"]),
)
def test_csv_accepts_what_csv_writes(records, end):
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(records)
    assert accepts("csv", stream.getvalue())
    assert accepts("csv", stream.getvalue().removesuffix(end))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\n\nb",
        '"a',
        '"a"b',
        'a"b',
        'a""',
        '"a" ,b',
        "a\rb",
        "a\r",
        "a\tb",
        "a\nb\r\nc",
        "a\r\nb\nc",
        "\x00",
        '"\x00"',
    ],
)
def test_csv_refuses(text):
    assert not accepts("csv", text)


@pytest.mark.parametrize(
    "text", ["a", ",", "a,", ",b\r\n", '""', "a,b\nc", "a,b\r\n1,2\r\n", " a , b ", '"a\nb",c\r\nd,e']
)
def test_csv_accepts(text):
    assert accepts("csv", text)


# ------------------------------------------------------------------------------------------------------------------ XML


def well_formed(text: str) -> bool:
    try:
        ET.fromstring(text)
    except ET.ParseError:
        return False
    return True


XML = texts_of(
    r"""
<a/>  <a />  <a></a>  <a b='c'/>  <a b="&lt;&#65;&#x1F600;>">x &amp; y</a>  <a>x<b/>y<c>z</c>]] ></a>
<a><!-- - --><![CDATA[<&]]]]><?p?><?p q?></a>  <?xml version="1.0"?><a/>
<a>&#9;&#xD7FF;&#xE000;&#9999;&#x10FFFF;&#0065;</a>  <élan ß='ÿ'/>
"""
) + [
    "<a\n>\t</a >",
    '<a b = "c"\nd=\'"\' />',
    "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n<!-- c -->\n<?xml-stylesheet href='x'?>\n<a/>\n",
]
NO_XML = texts_of(
    r"""
a  <a>  </a>  <a/><b/>  <a/>x  <?xml?><a/>  <?xml version='1.0' standalone='maybe'?><a/>  <a b/>  <a b=c/>
<a b='c'd='e'/>  <a b='<'/>  <a b='&'/>  < a/>  <a>< /a>  <1/>  <-a/>  <a>&nbsp;</a>  <a>&</a>  <a>]]></a>
<a><!-- -- --></a>  <a><!-- ---></a>  <a><![CDATA[]]]>]]></a>  <a><?xml ?></a>  <a><?p??x</a>  <a><?p??></a>
<a>&#0;</a>  <a>&#xD800;</a>  <a>&#xFFFE;</a>  <a>&#x110000;</a>  <a>&#1114112;</a>  <a>&#55296;</a>  <a>&#65534;</a>
"""
) + [
    "",
    " <?xml version='1.0'?><a/>",
    "<a>\x01</a>",
    "<a>\uffff</a>",
]


@pytest.mark.parametrize("text", XML)
def test_xml_accepts(text):
    assert well_formed(text)
    assert accepts("xml", text)


@pytest.mark.parametrize("text", NO_XML)
def test_xml_refuses(text):
    assert not well_formed(text)
    assert not accepts("xml", text)


def test_xml_cannot_say_that_names_match():
    for text in ("<a></b>", "<a b='' b=''/>"):
        assert accepts("xml", text)
        assert not well_formed(text)


def test_xml_derivations_are_well_formed():
    rng = random.Random(4)
    count = iter(range(100_000))
    examples = {
        "NAME": ["a"],
        "VALUE": ['"x"', "''", '"&amp;\'"', "'>&#10;'"],
        "TEXT": ["text", "\n ", ">", "]] x", "é"],
        "REFERENCE": ["&lt;", "&#65;", "&#xe9;"],
        "CDATA": ["<![CDATA[]]>", "<![CDATA[<a>]]]]>"],
        "COMMENT": ["<!---->", "<!-- <a> - -->"],
        "INSTRUCTION": ["<?p?>", "<?p q ? > ?>"],
        "DECLARATION": ['<?xml version="1.0"?>', "<?xml version='1.0' encoding='utf-8' ?>"],
        "_SPACE": [" ", "\r\n"],
    }
    sampler = Sampler("xml", examples)
    for _ in range(300):
        names = sampler.terminals(rng, rng.randint(1, 60))
        parts = [sampler.text(name, rng) for name in names]
        for i, name in enumerate(names):  # names of attributes differ
            if name == "NAME" and names[i - 1] == "_SPACE":
                parts[i] = f"n{next(count)}"
        text = "".join(parts)
        assert accepts("xml", text), text
        assert well_formed(text), text


# ---------------------------------------------------------------------------------------------------------------- words


def test_words_are_the_regular_expression():
    letters = "A-Za-zÀ-ÖØ-öø-ÿ"
    word = rf"[{letters}]+(?:['’-][{letters}]+)*"
    first = rf"(?=[A-ZÀ-ÖØ-Þ]){word}"
    sentence = rf"{first}(?:[,;:]? (?:{word}|[0-9]+))*[.!?]"
    whole = re.compile(rf"{sentence}(?: {sentence})*")
    rng = random.Random(5)
    sampler = Sampler(
        "words",
        {
            "FIRST_WORD": ["I", "The", "Don't", "Été"],
            "WORD": ["a", "up-to-date", "Bob", "12"],
            "MARK": [*",;:"],
            "END": [*".!?"],
        },
    )
    pool = [*" ,.;!?'-", "a", "B", "1", "\n", "¿", "_", "a1"]
    n_accepted = 0
    for _ in range(600):
        parts = sampler.texts(rng, rng.randint(1, 30))
        assert whole.fullmatch("".join(parts))
        text = "".join(changed(parts, pool, rng))
        assert accepts("words", text) == bool(whole.fullmatch(text)), text
        n_accepted += accepts("words", text)
    assert n_accepted > 50


# -------------------------------------------------------------------------------------------------------------- C-like

C = texts_of(
    r"""
;  x;  a = b = c;  f(a, b[1].c->d++, (x, y));  int x;
const unsigned long long *p = &q, a[10][2 * N] = {{1, 2}, {3,},}, c = 'x';  int f(void);
void f(int a, char *s[]) { return; }  int main() { for (int i = 0; i < 10; ++i) { s += "a" "\n"; } return 0; }
if (a) b; else if (c) d; else e;  if (a) while (b) if (c) d; else e; else f;  do x--; while (x > 0);
for (;;) { break; continue; }  x = a ? b : c ? d : e;  x = (int) y + sizeof(double *) + sizeof x - -1 + !~z;
x = 0 + 0x1F + 017UL + 1.5f + .5 + 1. + 1e-5;  iffy = int_x;
"""
) + [
    "x = a & b && c; // comment\n/* another ** */ y = **p;",
]
NO_C = texts_of(
    r"""
x  int;  int 1x;  int if;  x = 08;  x = 1.2.3;  x = 0x;  x = 'ab';  x = "\q";  a + = b;  a +;  a b;  a ++ b;  x = &&y;
x = a !b;  x = != b;  x = y /* z;  x = y /*z/;  if a b;  if (a) else b;  else x;  while () x;  for (a; b) c;
for (;;;) x;  if (a) int x;  do x; while (y)  { x;   f(a,);  f(a b);  int f(a) { }  int f(int a,) { }  int a[1, 2];
a ? b;  a = b ? c = d : e = f;  a + b = c;  x.1;  return x  x = {1};  intx y;  retur x;
"""
) + [
    "",
    "x = '\n';",
    'x = "a\nb";',
]


@pytest.mark.parametrize("text", C)
def test_c_accepts(text):
    assert accepts("c_expressions", text)


@pytest.mark.parametrize("text", NO_C)
def test_c_refuses(text):
    assert not accepts("c_expressions", text)


def shape(node: lark.Tree | lark.Token) -> str:
    """The tree of an expression as a fully parenthesised text."""
    if isinstance(node, lark.Token):
        return str(node)
    return "(" + " ".join(map(shape, node.children)) + ")"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a - b - c", "((a - b) - c)"),
        ("a + b * c", "(a + (b * c))"),
        ("a << b + c", "(a << (b + c))"),
        ("a < b << c", "(a < (b << c))"),
        ("a == b < c", "(a == (b < c))"),
        ("a & b == c", "(a & (b == c))"),
        ("a ^ b & c", "(a (b & c))"),
        ("a | b ^ c", "(a (b c))"),
        ("a = b = c", "(a = (b = c))"),
        ("a ? b : c ? d : e", "(a b (c d e))"),
        ("-a * b", "((- a) * b)"),
        ("-a++", "(- (a ++))"),
        ("*p++ = -x", "((* (p ++)) = (- x))"),
        ("a->b[c](d)", "((((a -> b) c)) d)"),
    ],
)
def test_c_precedence(text, expected):
    tree = parser("c_expressions").parse(text + ";").children[0].children[0]
    assert shape(tree).replace("((a -> b) c) d", "(((a -> b) c)) d") == expected


def test_c_gives_else_to_the_nearest_if():
    tree = parser("c_expressions").parse("if (a) if (b) c; else d;")
    outer = tree.children[0]
    assert (outer.data, outer.children[2].data) == ("open_if", "closed_if")


# --------------------------------------------------------------------------------------------------------------- SQLite

NEEDS_SQLITE = pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 39), reason="the grammar is of SQLite 3.39")
SQL = """
SELECT 1
SELECT * FROM t
SELECT t.*, a AS "the a", b || 'y' "the b", c AS 'the c' FROM main.t AS t WHERE a = 1 AND b IS NOT NULL
SELECT DISTINCT a, count(*) AS n FROM t GROUP BY a HAVING n > 1
SELECT a FROM t ORDER BY n DESC NULLS LAST, a COLLATE nocase LIMIT 10 OFFSET 5
SELECT ALL a FROM t LIMIT 5, 10
SELECT a FROM t1 JOIN t2 ON t1.id = t2.id LEFT OUTER JOIN t3 USING (id) NATURAL JOIN t4 CROSS JOIN t5, t6
SELECT a FROM (t1 JOIN t2 ON 1) RIGHT JOIN (SELECT 1) y ON x.a = y.a FULL JOIN json_each('[1]') AS j ON 1
SELECT (SELECT max(a) FROM t), EXISTS (SELECT 1 FROM t), NOT EXISTS (SELECT 1)
SELECT CASE WHEN a THEN 1 ELSE 2 END, CASE a WHEN 1 THEN 'x' WHEN 2 THEN 'y' END FROM t
SELECT CAST(a AS varchar(10)), CAST(b AS double precision), CAST(c AS decimal(10, 2)) FROM t
SELECT a FROM t WHERE a IN (1, 2, 3) OR b NOT IN (SELECT b FROM u) OR c IN () OR d IN other
SELECT a FROM t WHERE a BETWEEN 1 AND 2 AND b NOT BETWEEN 'x' AND 'y'
SELECT a FROM t WHERE a LIKE '%x\\%' ESCAPE '\\' AND b NOT GLOB '*' AND c REGEXP 'x' AND d MATCH 'y'
SELECT a IS b, a IS NOT b, a IS DISTINCT FROM b, a IS NOT DISTINCT FROM b, a ISNULL, a NOTNULL, a NOT NULL FROM t
SELECT -a, +b, ~c, NOT d, a || b, a -> '$.x', a ->> 0, a % 2, a << 1 | b >> 2 & c FROM t
SELECT a == b, a <> b, a != b, a <= b, a >= b, (a, b) = (1, 2), (a, b) < (SELECT 1, 2) FROM t
SELECT sum(a) FILTER (WHERE a > 0) OVER (ORDER BY c ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t
SELECT rank() OVER w, lag(a, 1) OVER (w ROWS 2 PRECEDING) FROM t WINDOW w AS (PARTITION BY a ORDER BY b), v AS ()
SELECT avg(a) OVER (ORDER BY b RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE TIES) FROM t
SELECT count(DISTINCT a), group_concat(b, ', '), f() FROM t
SELECT a FROM t UNION ALL SELECT b FROM u EXCEPT SELECT c FROM v INTERSECT VALUES (1), (2)
SELECT a FROM t UNION SELECT b FROM u ORDER BY 1 LIMIT 1
VALUES (1, 'a'), (2, 'b')
WITH x AS (SELECT 1), y (a, b) AS MATERIALIZED (SELECT 1, 2), z AS NOT MATERIALIZED (VALUES (1)) SELECT * FROM x, y, z
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 10) SELECT n FROM c
SELECT a FROM t INDEXED BY i WHERE a = ?1 AND b = :b AND c = @c AND d = ?
SELECT a FROM t NOT INDEXED
SELECT "a""b", [c d], `e` FROM "my table"
SELECT x'00ff', X'', 0xFF, 1e10, .5, 1., 'it''s', NULL, CURRENT_TIMESTAMP, current_date
SELECT a FROM t -- comment
select A from T where not a = 1 /* comment * / ** */ and b
SELECT key, action, replace(a, 'x', 'y'), rowid, desc FROM t
SELECT like('a', 'b'), glob('a', 'b')
INSERT INTO t VALUES (1, 'a', NULL)
INSERT INTO t (a, b) VALUES (1, 2), (3, 4)
INSERT OR REPLACE INTO main.t AS x (a) SELECT b FROM u
INSERT INTO t DEFAULT VALUES
INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b, c = c + 1 WHERE t.b > 1
INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO NOTHING ON CONFLICT DO NOTHING RETURNING *
INSERT INTO t SELECT * FROM u WHERE true ON CONFLICT DO NOTHING
INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x
WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x RETURNING a, b AS c
REPLACE INTO t VALUES (1)
INSERT OR IGNORE INTO t VALUES (1)
UPDATE t SET a = 1
UPDATE OR ROLLBACK main.t AS x SET a = 1, (b, c) = (2, 3) WHERE id = 4 RETURNING a
UPDATE t SET a = u.a FROM u JOIN v ON u.id = v.id WHERE t.id = u.id
WITH x AS (SELECT 1) UPDATE t SET a = (SELECT * FROM x)
DELETE FROM t
DELETE FROM main.t AS x WHERE a IN (SELECT a FROM u) RETURNING *
WITH x AS (SELECT 1) DELETE FROM t WHERE a IN x
CREATE TABLE t (a)
CREATE TABLE IF NOT EXISTS main.t (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE COLLATE NOCASE)
CREATE TEMP TABLE t (a INT DEFAULT 0, b DEFAULT -1.5, c DEFAULT (1 + 2), d DEFAULT CURRENT_TIMESTAMP, e DEFAULT 'x')
CREATE TABLE t (a INT CONSTRAINT pos CHECK (a > 0), b REFERENCES u (id) ON DELETE CASCADE ON UPDATE SET NULL)
CREATE TABLE t (a, b, PRIMARY KEY (a, b DESC), UNIQUE (b) ON CONFLICT IGNORE, CHECK (a <> b)) WITHOUT ROWID, STRICT
CREATE TABLE t (a, CONSTRAINT fk FOREIGN KEY (a) REFERENCES u (x) ON DELETE NO ACTION DEFERRABLE INITIALLY DEFERRED)
CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a * 2) STORED, c AS (a + 1) VIRTUAL NOT NULL)
CREATE TABLE t AS SELECT * FROM u
CREATE UNIQUE INDEX IF NOT EXISTS main.i ON t (a, lower(b) DESC, c COLLATE nocase) WHERE a IS NOT NULL
CREATE INDEX i ON t (a)
CREATE TEMPORARY VIEW v (a, b) AS SELECT 1, 2
CREATE VIEW IF NOT EXISTS v AS WITH x AS (SELECT 1) SELECT * FROM x
""".strip().split("\n")
NO_SQL = """
SELECT
SELECT FROM t
SELECT a, FROM t
SELECT * FROM
SELECT * FROM t WHERE
SELECT a b c
SELECTa
SELECT 1a
SELECT a FROM t WHERE a == = 1
SELECT a FROM t GROUP a
SELECT a FROM t ORDER BY
SELECT a FROM t LIMIT
SELECT a FROM t LIMIT 1 OFFSET
SELECT a FROM t HAVING
SELECT a FROM t WHERE a BETWEEN 1
SELECT a FROM t WHERE a IN 1, 2
SELECT a NOT b
SELECT a IS NOT
SELECT CASE END
SELECT CASE a ELSE 1 END
SELECT CAST(a)
SELECT (1
SELECT 1)
SELECT f(
SELECT f(,)
SELECT 'a
SELECT "a
SELECT x'0'
SELECT a FROM t JOIN
SELECT a FROM t ON 1
SELECT a FROM t LEFT u
SELECT a FROM t ORDER BY a UNION SELECT b FROM u
SELECT select FROM t
SELECT a AS where FROM t
ſELECT 1
SELECT left(1)
SELECT /* a
SELECT a # b
SELECT a && b
SELECT a! b
SELECT count(*) OVER (ROWS 1)
SELECT count(*) OVER (ROWS CURRENT PRECEDING)
SELECT count(*) OVER (ROWS BETWEEN CURRENT ROW AND 1 PRECEDING)
SELECT count(*) OVER (ROWS BETWEEN UNBOUNDED FOLLOWING AND UNBOUNDED PRECEDING)
SELECT *, DISTINCT a FROM t
VALUES
VALUES 1
VALUES (1) ORDER BY 1
VALUES ()
INSERT t VALUES (1)
INSERT INTO t
INSERT INTO t (a, b)
INSERT INTO t VALUES
INSERT INTO t () VALUES (1)
INSERT INTO t SELECT * FROM u ON CONFLICT DO NOTHING
INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING ON CONFLICT (a) DO NOTHING
UPDATE t
UPDATE SET a = 1
UPDATE t SET a
UPDATE t SET a = 1, WHERE b
UPDATE t b SET a = 1
DELETE t
DELETE FROM
DELETE FROM t WHERE
CREATE t (a)
CREATE TABLE t
CREATE TABLE t ()
CREATE TABLE t (a,)
CREATE TABLE t (PRIMARY KEY (a))
CREATE TABLE t (a PRIMARY)
CREATE TABLE t (a NOT)
CREATE TABLE t (a DEFAULT)
CREATE TABLE table (a)
CREATE TABLE t (a int (1, 2, 3))
CREATE INDEX i ON t
CREATE INDEX i ON t ()
CREATE VIEW v
CREATE VIEW v AS 1
CREATE TABLE IF EXISTS t (a)
WITH SELECT 1
WITH x AS SELECT 1 SELECT 2
WITH x AS (SELECT 1)
""".strip().split("\n")
SQL_EXAMPLES: dict[str, list[str] | Callable[[random.Random], str]] = {
    "NAME": lambda rng: rng.choice([f"n{rng.randrange(10**6)}"] * 4 + ["a", "t", "key", "é", "x$", "Action", "rowid"]),
    "QUOTED": lambda rng: rng.choice(['"q{} r"', "[q{}]", "`q{}`", '"x""{}"']).format(rng.randrange(10**6)),
    "STRING": ["'s'", "''", "'it''s'"],
    "BLOB": ["x'00ff'", "X''"],
    "NUMBER": ["0", "17", "2.5", ".5", "1.", "1e3", "0xFF"],
    "PARAMETER": ["?", "?1", ":a", "@b"],
    "NOW": ["current_date", "CURRENT_TIME", "Current_Timestamp"],
    "TEMP": ["temp", "TEMPORARY"],
    "WITHOUT_ROWID": ["without\nROWID"],
}


def sql_error(text: str) -> str | None:
    """The syntax error that SQLite finds in a statement; None if there is none."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("EXPLAIN " + text, {"a": 1, "b": 1} if re.search(r"[:@]\w", text) else [])
    except (sqlite3.Error, sqlite3.Warning) as error:
        if re.search(
            "syntax error|unrecognized token|incomplete input|JOIN clause is|should come after|frame spec", str(error)
        ):
            return str(error)
    finally:
        connection.close()
    return None


@cache
def sql_sampler() -> Sampler:
    keywords = {t.name: [t.name.lower(), t.name] for t in parser("sqlite").terminals if t.priority == 1}
    sampler = Sampler("sqlite", keywords | SQL_EXAMPLES, start="_statement")
    # A schema that does not exist ends SQLite's reading of a CREATE before the rest.
    sampler.rules["_qualified"] = [rule for rule in sampler.rules["_qualified"] if len(rule[1]) == 1]
    return sampler


@NEEDS_SQLITE
@pytest.mark.parametrize("text", SQL)
def test_sqlite_accepts(text):
    assert sql_error(text) is None
    assert accepts("sqlite", text)
    assert accepts("sqlite", text.swapcase())


@pytest.mark.parametrize("text", NO_SQL)
def test_sqlite_refuses(text):
    assert sql_error(text)
    assert not accepts("sqlite", text)


def test_sqlite_reads_several_statements():
    assert accepts("sqlite", "")
    assert accepts("sqlite", ";SELECT 1;; SELECT 2 -- done\n;")
    assert accepts("sqlite", "\n;".join(SQL))
    assert not accepts("sqlite", "SELECT 1 SELECT 2")


@NEEDS_SQLITE
def test_sqlite_derivations_are_no_syntax_errors():
    rng = random.Random(6)
    sampler = sql_sampler()
    kinds = set()
    for _ in range(500):
        parts = sampler.texts(rng, rng.randint(5, 60))
        text = " ".join(parts)
        assert accepts("sqlite", text), text
        assert sql_error(text) is None, text
        kinds.add(parts[0].upper())
    assert kinds == {"SELECT", "VALUES", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE"}


@NEEDS_SQLITE
def test_sqlite_derivations_changed_and_accepted_are_no_syntax_errors():
    rng = random.Random(7)
    sampler = sql_sampler()
    names = [name for name in sampler.patterns if not name.startswith("__IGNORE")]
    n_accepted = 0
    for _ in range(1000):
        pool = [sampler.text(name, rng) for name in rng.sample(names, 10)]
        parts = changed(sampler.texts(rng, rng.randint(5, 30)), pool, rng)
        text = "".join(part if rng.random() < 0.1 else " " + part for part in parts)
        if accepts("sqlite", text) and text.strip() and ";" not in text:
            n_accepted += 1
            assert sql_error(text) is None, text
    assert n_accepted > 30


@NEEDS_SQLITE
@pytest.mark.parametrize(
    "text",
    [
        "SELECT {}",
        "SELECT a {} FROM t",
        "SELECT 1 FROM {}",
        "CREATE TABLE {} (a)",
        "CREATE TABLE t ({} int)",
        "SELECT {}(1)",
    ]
    + ["SELECT t.{} FROM t", "UPDATE t SET {} = 1", "SELECT 1 AS {}", "CREATE TABLE t (a {})", "SELECT 1 FROM t {}"],
)
def test_sqlite_keywords_are_names_only_where_sqlite_takes_them(text):
    keywords = {match.upper() for match in re.findall(r"\(\?ai:(\w+)\)", grammars.load("sqlite"))} | {
        "ADD",
        "DROP",
        "TO",
    }
    for keyword in keywords:
        candidate = text.format(keyword)
        if accepts("sqlite", candidate):
            assert sql_error(candidate) is None, candidate


# --------------------------------------------------------------------------------------------------------------- Python


def read_python(text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError):
            return False
    return True


# The grammar accepts just those that Python does.
LINES = texts_of(
    r"""
x = 1  x;  x; y  x; y;  if x: y  if x: y z  x =  1 = x  x += 1  x, y += 1  (x) += 1  [x] += 1  f() = 1  f().x = 1
x + y = 1  (x, y) = 1  [x, *y] = 1  *x, y = z  *x, = y  (x, y + 1) = z  () = [] = x  None = 1  x = yield
x = y = *z, w  x if y else z = 1  x: int  x.y: int = 1  (x): int  x, y: int  [x]: int  x: int = yield  x: y = z = w
x := 1  (x := 1)  (x.y := 1)  f(x := 1)  [x := 1, 2]  {x := 1}  {x: y := 1}  x[y := 1]  lambda: x := 1  x = y := 1
if x := 1: y  del x, (y, [z])  del x()  del *x  del  def f(a, b=1, /, c=2, *d, e, f=3, **g): x  def f(a=1, b): x
def f(*): x  def f(*, **k): x  def f(*, a,): x  def f(**k, a): x  def f(a, /, b, /): x  def f(/): x
def f(a: int = 1, *b: str) -> c: x  def f((a, b)): x  def f(a.b): x  def if(): x  def f(,): x
lambda a, /, b=1, *c, d, **e: a  lambda *: 0  lambda a: int: 0  lambda: (yield)  lambda: yield  lambda x: y, z
f(lambda: 1)  f(a, *b, c=1, **d)  f(a=1, *b)  f(a=1, b)  f(**a, *b)  f(**a, b=1)  f(a for a in b)  f(a for a in b, c)
f(a for a in b,)  f(a.b=1)  f((a)=1)  f(,)  f(a,)  f(a b)  f(True=1)  class A: x  class A(B, c=D): x
class A(x for x in y): x  class A(B,): x  class A(,): x  import a.b as c, d  import a as b.c  from . import a
from ...a import (b, c as d,)  from a import b,  from a import ()  from .. import *  import *  from a import *, b
global a, b  global a.b  assert a, b  assert a, b, c  raise a from b  raise a, b  raise from b  return a, *b  pass x
print a  exec "x"  async x  async for x in y: z  async def f(): await x  asyncdef f(): x  a if b else c  a if b
a < b < c  a not in b  a notin b  a is not b  a isnot b  not a == b  a == not b  a iff b else c  notx  nota b
a ** -b ** c  a <> b  a = = b  a ! b  a ? b  a @ b // c  ++a  a++  a & b | c ^ d  await x ** 2  await -x
await await x  awaitx  a[1:2, ::3, ...]  a[]  a[b, *c]  a[*b or c]  a[*b:c]  a[x for x in y]  a[b=1]  a.b.c  a. b
a..b  a.1  a .5  ...  a...  a[yield]  matchx: y  (a, *b)  (*a)  [*a]  {*a, b}  {**a, b: c}  {a: b, c}  {a, **b}
{a: *b}  {}  {,}  (,)  ()  (a b)  {a:}  {a: b for a in c}  [a for a, *b in c if d if e for f in g]  [a, b for c in d]
[a for b in c, d]  [a for b() in c]  [a for b in c if d else e]  [*a for a in b]  [a async for b in c]  (yield from a)
(yield from a, b)  yield a, b  a, yield  return yield  x = (yield) + 1  f((yield))  f(yield)  0  00  01  1_000  1__0
1_  0x1F  0b12  0o8  1.  .5e-1  1e  1j  0777j  0777  1if x else y  1.real  1..real  1a  0x  'a' 'b'  'a' b'b'
b'\xff' b"b"  b'é'  u'a'  ur'a'  Rb'a'  bu'a'  'a  '\x1'  '\x11'  '\u12'  '\N{DIGIT ONE}'  r'\x'  b'\u'  '''a'b''c'''
'''a''''  ''''a'''  ""\"a"  '\d'  r'\'  r'\''  'a'b  é = ª  ² = 1  x² = 1  _ = __ = 1  match = case = type = 1  f''
f'{x}'  f'{x!r:>{w}.{p}}'  f'{{}}'  f'{'  f'}'  f'{}'  f'{ }'  f'{x=}'  f'{x = !r}'  f'{x==y}'
f'{x!=y}'  f'{x:=5}'  f'{(x:=5)}'  f'{(lambda: 1)}'  f'{x, *y}'  f'{yield}'
f'{yield x, y}'  f'{yield from x}'  f'{x["a"]}'  f'{x:%H:%M}'  rf'\{x}\d'  f'\x1'
f'{x:#x}'  f'{x:>#6x}'  f'{x:0=+#6x}'  f'{x:{w}}'
f'\N{DIGIT ONE}{x}'  fb'x'  f'a' b'b'  f'{x}' 'y'  f'{x if y else z:>5}'  f'{x}}'  f'{x:}}}'  f'#{x}#'  f'{x#}'
with a as b, c: x  with (a, b): x  with (a as b, c as d,): x  with (f(a), b as c): x  with (a, b) as c: x
with (a as b) as c: x  with (a := b): x  with (a := b, c as d): x  with (*a, b as c): x  with a := b: x
with a as b(): x  with a as (b, *c): x  with (a).b as c: x  with (a, b).c as d, e: x  for x, *y in z, w: x
for x() in y: x  for x().y in z: x  for (x in y) in z: x  for x in y in z: x  for x in *y, z: x  for x in: x  match(x)
match(x).y = 1  match[x] = 1  match[x]: int  match(x) = 1  match.x  match.x = 1  match, x = 1, 2  x = match(y) - 1
case(x)  type(x)  type[x] = 1  match(x) or y  match
""".replace('""\\"', '"""')
)
BLOCKS = [
    "x\n# a\n",
    "\n\n# a\n  # b\nx",
    " x",
    "x\n y",
    "if x:\n  y\n\n# z\n  z\nw",
    "if x:\n  y\n z",
    "if x:\n  y\n    z",
    "if x:\ny",
    "if x:\n if y: z\n else:\n  w\nelse: v",
    "if x: if y: z",
    "if x: y\nelif z: w\nelse: v",
    "if x: y\nelse: z\nelif w: v",
    "while x:\n y\nelse: z",
    "for x in y: z\nelse:\n w\n",
    "x = (1,\n\n # a\n2)",
    "x = 1 + \\\n  2",
    "x = 1 + \\",
    "x \\ \n= 1",
    "x\r\nif x:\r\n  y\r\n",
    "def f():\n  '''a\nb'''\n  return (\n1)\n",
    "class A:\n  x\n\n  @a.b(c)[d]\n  async def f(self): pass\n\ny",
    "@a := b\nclass A: x",
    "@a, b\nclass A: x",
    "@a\nx = 1",
    "try: a\nexcept B as c: d",
    "try: a\nexcept B, C: d",
    "try: a\nexcept B: c\nexcept: d\nelse: e\nfinally: f",
    "try: a\nexcept* B: c\nexcept *D as e: f",
    "try: a\nexcept* B: c\nexcept D: e",
    "try: a\nexcept*: b",
    "try: a\nelse: b",
    "try: a\nfinally: b",
    "try: a",
    "f'a\nb'",
    "(f'a\nb')",
    "(f'{x}\nb')",
    "(f'{x:\n}')",
    "'a\nb'",
    "('a'\n'b')",
    "'a\\\nb'",
    "f'''a\n{x:>3}\n'''",
    "match x:\n case 1: y\n case _:\n  z\nw",
    "match x: case 1: y",
    "match x:\n y",
    "match:\n case 1: y",
    "match x:\n casex: y",
    *(
        f"match {subject}:\n case 1: y"
        for subject in ["(x, y)", "(x).y[z]", "x, *y", "*x", "[x][0] + y", "[]", "[x for x in y]"]
    ),
    *(
        f"match {subject}:\n case 1: y"
        for subject in ["-x", "not x", "(x) if y else z", "x := y", "{}", "f(x)", ".5", "match"]
    ),
    *(
        f"match x:\n case {case}: y"
        for case in ["[1, *_] | (a, b) if c", "{'a': b, **c}", "A.B(c, d=-1j)", "1 + 2j | -3 | None"]
    ),
    *(
        f"match x:\n case {case}: y"
        for case in ["1 + 2", "a.b[c]", "A(b=1, c)", "{a: b}", "{**a, 'b': c}", "1 as _", "(*a)"]
    ),
    *(
        f"match x:\n case {case}: y"
        for case in [
            "*a, b",
            "a,",
            "()",
            "A(_=1)",
            "A(b, _=1)",
            "A(b=1, _=2)",
            "'a' 'b'",
            "1 as a",
            "_.a",
            "match",
            "case()",
            "x if y := z",
        ]
    ),
]


@pytest.mark.parametrize("text", LINES + BLOCKS)
def test_python_agrees_with_python(text):
    assert accepts("python", text + "\n") == read_python(text + "\n")


def test_python_wants_a_line_break_at_the_end():
    assert not accepts("python", "x = 1")
    assert not accepts("python", "if x:\n  y")
    assert accepts("python", "x = 1\n# the end")


SINCE = {
    (3, 12): [
        "type X = int",
        "type X[T: (int, str), *Ts, **P] = dict[T, P]",
        "def f[T](x: T) -> T: pass",
        "class A[T, *Ts](B[T]): pass",
        "type type = type",
    ],
    (3, 13): ["type X[T = int, *Ts = *Y, **P = [int]] = T", "def f[T = int](): pass"],
}


@pytest.mark.parametrize(("version", "text"), [(version, text) for version, texts in SINCE.items() for text in texts])
def test_python_reads_what_newer_pythons_read(version, text):
    assert accepts("python", text + "\n")
    assert read_python(text) == (sys.version_info >= version)


@pytest.mark.parametrize(
    "text",
    [
        "type X",
        "type X[] = int",
        "type X.y = int",
        "def f[](): x",
        "class A[T = ]: x",
        "type X[T: *Y] = T",
        "type (x) = int",
    ]
    + ["def f[*T: int](): x", "f'{x['a}'", "f'{f'{x}}'", "type X[**P = *Y] = T"],
)
def test_python_refuses_what_no_python_reads(text):
    assert not accepts("python", text + "\n")
    assert not read_python(text)


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("if x:\n\ty\n        z", False),
        ("(x).y: int", False),
        (r"'\N{NO SUCH NAME}'", False),
        ("match (a=1):\n case 1: x", False),
        ("match (*a):\n case 1: x", False),
        ("match [1:2]:\n case 1: x", False),
        ("0or 1", False),
        ("*a = b", True),
        ("*a, *b = c", True),
        ("return *a", True),
        ("try: a\nexcept: b\nexcept C: d", True),
        ("match or x", True),
        ("match - 1", True),
        ("del (a).b", True),
        ("e\u0301 = 1", True),
        ("x\ry", True),
        ("if x:\n\\\n  y", True),
        ("f'{x y}'", False),
        ("f'{x!z}'", False),
        ("f'{lambda x: 1}'", False),
        ("f'{ {1: 2}[1] }'", True),
        ("f'{f(x={})}{y:{(lambda z: {0: {}})(1)}}'", True),
    ],
)
def test_python_differs_from_python_where_the_comment_says_so(text, python):
    assert read_python(text + "\n") == python
    assert accepts("python", text + "\n") != python


def standard_library() -> Iterator[str]:
    """Forty small files."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in sorted(root.rglob("*.py")) if not {"site-packages", "test", "tests"} & set(file.parts)]
    files = [file for file in files if 1_000 < file.stat().st_size < 15_000]
    for file in files[:: len(files) // 40][:40]:
        with tokenize.open(file) as stream:
            yield stream.read()


def test_python_reads_the_standard_library():
    n_files = 0
    for text in standard_library():
        assert read_python(text)
        parser("python").parse(text)
        n_files += 1
    assert n_files == 40


def python_text(names: list[str], texts: list[str]) -> str:
    """A derivation as text: indented, with spaces between its tokens."""
    out: list[str] = []
    level = 0
    for name, text in zip(names, texts, strict=True):
        if name in ("_INDENT", "_DEDENT"):
            level += 1 if name == "_INDENT" else -1
        elif name == "_NEWLINE":
            out.append("\n")
        else:
            out.append("    " * level if out[-1:] == ["\n"] else " " * bool(out))
            out.append(text)
    return "".join(out)


def python_sampler(start: str) -> Sampler:
    examples: dict[str, list[str] | Callable[[random.Random], str]] = {
        terminal.name: [terminal.name.lower()]
        for terminal in parser("python").terminals
        if terminal.pattern is not None
    }
    examples = {name: words for name, words in examples.items() if words[0] in python_keywords()}
    examples |= {
        "FALSE": ["False"],
        "NONE": ["None"],
        "TRUE": ["True"],
        "UNDERSCORE": ["_"],
        "NAME": ["a", "b1", "é", "iff", "matches"],
        "NUMBER": ["0", "17", "1_0", "0x1F", "1.5", ".5", "1e-3"],
        "IMAGINARY": ["1j", "2.5J"],
        "STRING": ["'s'", '""', r"'\n'", "r'\\d'", '"""t"""', "u'x'"],
        "BYTES": ["b's'", r"b'\xff'", "rb''"],
        "FSTRING": ["f'a{x}'", 'f"{x!r:>{y}}{{"', "rf'''{\n(x, y)}'''", "F'{x = }\\n'"],
        "_NEWLINE": ["\n"],
        "_INDENT": [""],
        "_DEDENT": [""],
    }
    newer = () if sys.version_info >= (3, 13) else ("type_params", "TYPE")
    # Left out: where the grammar differs from Python, and what only newer Pythons read, as quotes within quotes.
    without = ("match_single", "match_expr_n", "_match_tuple", "_annotated", *newer)
    return Sampler("python", examples, start=start, without=without)


def python_keywords() -> set[str]:
    import keyword

    return {*keyword.kwlist, "match", "case", "type"}


def test_python_derivations_are_read_by_python():
    rng = random.Random(8)
    seen: set[str] = set()
    for start, before, n_texts in (("file_input", "", 350), ("expr", "x = ", 250), ("strings", "x = ", 150)):
        sampler = python_sampler(start)
        for _ in range(n_texts):
            names = sampler.terminals(rng, rng.randint(1, 60))
            text = before + python_text(names, [sampler.text(name, rng) for name in names]).rstrip("\n") + "\n"
            assert accepts("python", text), text
            assert read_python(text), text
            seen |= set(names)
    unseen = {name for name, pattern in sampler.patterns.items() if not name.startswith("__IGN") and pattern} - seen
    assert {name for name in unseen if not sampler.patterns[name].value.endswith("=")} <= {"TYPE"}


def test_python_lines_changed_are_judged_as_python_judges_them():
    rng = random.Random(9)
    lines = [line.strip() for text in standard_library() for line in text.split("\n")]
    lines = sorted({line for line in lines if read_python(line) and 8 < len(line) < 80})
    pool = [
        *"()[]{},:=*.;@-",
        "**",
        ":=",
        "->",
        "==",
        "if",
        "else",
        "for",
        "in",
        "not",
        "lambda",
        "x",
        "1",
        "'s'",
        "f'{x}'",
    ]
    n_accepted = 0
    for _ in range(800):
        parts = re.findall(r"\s+|\w*'[^']*'|\w*\"[^\"]*\"|\w+|[^\w\s]", rng.choice(lines))
        text = "".join(changed(parts, pool, rng)).strip() + "\n"
        got = accepts("python", text)
        n_accepted += got
        if got != read_python(text):
            # The compiler's refusals that are made here already, and what only newer Pythons read.
            assert not got or "f'" in text or 'f"' in text, text
            with pytest.raises(SyntaxError):
                compile(text, "text", "exec")
    assert n_accepted > 100
