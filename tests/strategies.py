"""Hypothesis strategies shared by the property tests: small patterns, texts and vocabularies that collide a lot."""

from __future__ import annotations

import os

from hypothesis import strategies as st

from outlines_core import Vocabulary

ALPHABET = "ab\né"


def scaled(examples: int) -> int:
    """`examples` times the environment's FUZZ_SCALE: 1 in the ordinary run, as large as you like by hand."""
    return max(1, int(examples * float(os.environ.get("FUZZ_SCALE", "1"))))


_ATOMS = st.sampled_from(
    ["a", "b", "ab", "é", ".", "[ab]", "[^a]", r"\w", r"\W", r"\n", r"\d", "(?i:A)", "(?s:.)", "aé", "[b-é]"]
)
_ZERO_WIDTH = st.sampled_from(["^", "$", r"\b", r"\B", r"\A", r"\Z", "(?m:^)", "(?m:$)", ""])
_COUNTS = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}", "*?", "+?", "??", "{1,3}?"])
_POSSESSIVE = st.sampled_from(["*+", "++", "?+", "{1,2}+"])


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = inner.map(lambda p: f"(?:{p})")
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, inner, inner).map(lambda three: f"(?:{three[0]}|{three[1]}|{three[2]})"),
        st.tuples(group, _COUNTS).map("".join),
        st.tuples(st.sampled_from(["(?=", "(?!"]), inner).map(lambda two: f"{two[0]}{two[1]})"),
    )


def _behind() -> st.SearchStrategy[str]:
    plain = ["a", "b", "ab", "é", "[ab]", "a|b", "ab|bé", "^a", "."]
    conditional = ["a$", r"\b", r"a\b", r"\Ba", "(?<!b)a", "a(?=b)", "(?!b).a", r"a(?<=\ba)", "(?<=(?<!a)b)a"]
    fixed = st.sampled_from(plain + conditional)
    return st.tuples(st.sampled_from(["(?<=", "(?<!"]), fixed).map(lambda two: f"{two[0]}{two[1]})")


def patterns(*, looks: bool = True, atomic: bool = False) -> st.SearchStrategy[str]:
    """Patterns of the python dialect over `ALPHABET`."""
    leaves = [_ATOMS, _ATOMS, _ATOMS, _ZERO_WIDTH]
    if looks:
        leaves.append(_behind())
    if atomic:
        leaves.append(st.tuples(st.sampled_from(["a", "[ab]", "(?:ab|a)", "(?:a|ab)", "."]), _POSSESSIVE).map("".join))
        leaves.append(
            st.sampled_from(
                [
                    "(?>a|ab)",
                    "(?>ab|a|b)",
                    "(?>(?:ab|a)+)",
                    "(?>a*b|a)",
                    "(?>.{1,2}?b?)",
                    "(?>(?:a|b)*?b)",
                    r"(?>a\b|ab)",
                    r"(?>(?=b)b|a(?!b)|.)",
                    r"(?>a{1,2}$|.)",
                    r"(?>(?>a|ab)|b)",
                ]
            )
        )
    return st.recursive(st.one_of(*leaves), _grow, max_leaves=6)


def texts(max_size: int = 6) -> st.SearchStrategy[str]:
    return st.text(alphabet=ALPHABET, max_size=max_size)


@st.composite
def vocabularies(draw: st.DrawFn, *, complete: bool | None = None) -> Vocabulary:
    """Few tokens over the bytes of `ALPHABET`, with duplicates, holes and several EOS ids; maybe every byte."""
    raw = [text.encode() for text in draw(st.lists(texts(4).filter(bool), min_size=1, max_size=8))]
    raw += draw(st.lists(st.sampled_from([b"\xc3", b"\xa9", b"a\xc3", b"\xa9b", b"\xa9\n"]), max_size=3))
    if draw(st.booleans()) if complete is None else complete:
        raw += [bytes([byte]) for byte in sorted(set(ALPHABET.encode()))]
    stride = draw(st.integers(1, 9))
    tokens: dict[bytes, list[int]] = {}
    for k, token in enumerate(raw):
        tokens.setdefault(token, []).append(2 + stride * k)
    eos = draw(st.sampled_from([0, (0,), (0, 1), 2 + stride * len(raw)]))
    return Vocabulary(eos, tokens, special_tokens={"<pad>": 1} if eos == 0 and draw(st.booleans()) else {})
