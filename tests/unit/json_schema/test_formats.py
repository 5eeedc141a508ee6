"""Every format by its own table of members and near misses; the calendar and leap seconds by arithmetic."""

import calendar
import gzip
import itertools
import json
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from outlines_core.errors import LimitExceededError, UnsupportedFeatureError
from outlines_core.json_schema.formats import FORMATS, format_automaton, format_parts
from outlines_core.json_schema.host_names import HostNames
from outlines_core.json_schema.idna_rules import BREAKS_BIDI, RTL, a_label, u_label
from outlines_core.json_schema.punycode import deltas_of
from outlines_core.limits import Limits
from outlines_core.regex import ast
from outlines_core.regex.language import Language
from outlines_core.regex.nfa import build_nfa
from outlines_core.regex.simplify import simplify

SUITE = Path(__file__).parents[4] / "shared/data/json-schema-suite-draft2020-12.jsonl.gz"
WITHOUT_PARTS = {"hostname", "idn-hostname", "regex"}
WITH_PARTS = sorted(FORMATS - WITHOUT_PARTS)


@cache
def languages(name):
    return [Language(part) for part in format_parts(name)]


@cache
def host_names(name):
    return format_automaton(name)


def accepts(name, text):
    if name in WITHOUT_PARTS:
        return host_names(name).matches(text.encode())
    return all(language.matches(text) for language in languages(name))


MEMBERS = {
    "date": ["2024-02-29", "2000-02-29", "0000-02-29", "9999-12-31", "1900-02-28", "2023-11-30"],
    "date-time": [
        "2024-02-29T23:59:59Z",
        "1985-04-12t23:20:50.52z",
        "1990-12-31T23:59:60Z",
        "1990-12-31T15:59:60.25-08:00",
        "1937-01-01T12:00:27.87+00:20",
        "2024-01-01T00:00:00-00:00",
    ],
    "duration": ["P1Y2M3DT4H5M6S", "P3W", "PT0S", "P007D", "P1YT1M", "PT1H2M", "PT36H", "P1M"],
    "email": [
        "a@b",
        "a.b+c@example.com",
        '""@b',
        '"a@\\" b"@x-1.y',
        "a@[127.0.0.001]",
        "a@[IPv6:::1]",
        "a@[ipv6:1:2:3:4:5:6:7:8]",
        "a@[IPv6:::ffff:1.2.3.4]",
        "a@[IPv6:1:2:3:4:5:6::]",
        "{a|b}@c",
        "a@1",
        "a@x--y",
    ],
    "idn-email": ["ä@ö.ü", "实例@例え.jp", '"ü b"@c', "a@b", "a@e\u0301x", "𝕏@x"],
    "ipv4": ["0.0.0.0", "255.255.255.255", "1.20.199.249"],
    "ipv6": [
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1:2:3::5:6:7:8",
        "::1.2.3.4",
        "1:2:3:4:5:6:1.2.3.4",
        "1::6:1.2.3.4",
        "1:2:3:4:5::1.2.3.4",
        "ABCD:ef01::",
    ],
    "iri": ["http://ä.b/ö?ü#ß", "urn:ä", "a:", "http://[::1]:80/\U00010300?\ue000", "http://%C3%A4/", "a:b:c"],
    "iri-reference": ["", "ä", "//ö", "?\U000f0000", "#ä", "./a:b", "ä/a:b"],
    "json-pointer": ["", "/", "/a/b", "/~0~1", "/ä\n\0", '/"'],
    "relative-json-pointer": ["0", "10", "0#", "1/a/~0", "0/"],
    "time": ["00:00:00Z", "23:59:60z", "12:00:00.1+23:59", "01:29:60+01:30", "00:59:60.5+01:00"],
    "uri": [
        "a:",
        "http://u:p@h:80/p/q?r#s",
        "http://@/",
        "http://h:/",
        "file:///x",
        "mailto:a@b",
        "urn:a:b",
        "http://[::1]",
        "http://[v1.a:b]/",
        "http://[1:2:3:4:5:6:7::]",
        "a+b-c.1:?",
        "http://999.1/",
        "a:/",
        "a:b//c",
        "http://a/?/?#/?",
    ],
    "uri-reference": ["", "/", "//", "a/b:c", "?q", "#", "./a:b", "a:b", "..//", "@", "//h:1", "a@b/c"],
    "uri-template": ["", "a{b}", "{+a,b*,c:9999}", "{?x.y,%41}", "é%20'", "{&a}{;b}{/c}{.d}{#e}", "{=future}"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "abcdefAB-CDEF-0123-4567-89abcdef0123"],
    "hostname": [
        "a",
        "A.b-c.9",
        "3com",
        "a--b",
        "ab--c",
        "x",
        "xn",
        "xn.xn-a",
        "a" * 63,
        ".".join(["a" * 63] * 3 + ["b" * 61]),
        "xn--bcher-kva.example",
        "XN--Bcher-KVA",
        "xn--zca",
        "a.xn--4dbc5h",
        "127.0.0.1",
    ],
    "idn-hostname": [
        "bücher.example",
        "例え。テスト",
        "xn--bcher-kva.日本",
        "l·l",
        "ß",
        "אב.גד",
        "Example.COM",
        "क्\u200cष",
        "\u0628\u200c\u0628",
        "a\uff61b\uff0ec",
        "ü" * 57,
    ],
    "regex": ["", "^a+(b|c)$", r"(?<n>a)\k<n>", "[^]", "a{,3}", r"(?<=a+)b", "[é-一]"],  # more in test_regex_syntax.py
}
NEAR_MISSES = {
    "date": [
        "2023-02-29",
        "1900-02-29",
        "2100-02-29",
        "2024-02-30",
        "2024-04-31",
        "2024-00-01",
        "2024-1-01",
        "02024-01-01",
    ],
    "date-time": [
        "2024-02-29 23:59:59Z",
        "2024-02-30T00:00:00Z",
        "2024-01-01T23:58:60Z",
        "2024-01-01T23:59:60+01:00",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+0100",
        "2024-01-01T00:00:00Z\n",
        "２024-01-01T00:00:00Z",
    ],
    "duration": ["P", "PT", "P1", "P1YT", "P1Y2D", "PT1H2S", "P1W2D", "P1.5D", "1D", "-P1D", "P1DT", "PT1D", "P1H"],
    "email": [
        "a",
        "@b",
        "a@",
        "a.@b",
        ".a@b",
        "a..b@c",
        "a@b.",
        "a@-b",
        "a@b-",
        "a b@c",
        '"a"b@c',
        '"a\n"@b',
        "a@[1.2.3]",
        "a@[256.1.1.1]",
        "a@[1:2:3:4:5:6:7:8]",
        "a@[IPv6:1:2:3:4:5:6:7::]",
        "a@[tag:x]",
        "a@b_c",
        "ä@b",
        "a@b@c",
    ],
    "idn-email": ["ä", "@ä", "ä@", "a b@ä", "ä.@b", "ä@-ö", "ä＠b", '"\\ü"@b'],
    "ipv4": ["01.1.1.1", "256.1.1.1", "1.1.1", "1.1.1.1.1", "1.1.1.1 ", "١.1.1.1", ""],
    "ipv6": [
        "",
        ":",
        ":::",
        "1",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7:8::",
        "1:2:3:4::5:6:7:8",
        "1::2::3",
        ":1::2",
        "1::2:",
        "12345::",
        "::1.2.3",
        "::1.2.3.04",
        "1:2:3:4:5:6:7:1.2.3.4",
        "1:2:3:4:5:6::1.2.3.4",
        "1.2.3.4::",
        "::1%eth0",
        "::1/64",
        "g::",
    ],
    "iri": ["", "ä", "//ö", "http://a b", "http://a/\ue000", "http://[ä]/", "a:\u200e", "a:\u202e", "ä:b", "a:\ufffe"],
    "iri-reference": ["a b", "\\", "ä:b", "1:ä", "#\ue000", "<ä>"],
    "json-pointer": ["a", "#", "/~", "/~2", "/a~"],
    "relative-json-pointer": ["", "-1", "+1", "01", "0##", "0#/a", "/a", "0a", "1~0"],
    "time": [
        "24:00:00Z",
        "00:00:60Z",
        "23:59:60+00:01",
        "12:00:00",
        "12:00Z",
        "12:00:00.Z",
        "12:00:00+24:00",
        "1:00:00Z",
    ],
    "uri": [
        "",
        "a",
        "//a",
        "1:a",
        ":a",
        "http://[::1",
        "http://::1]",
        "http://[::1]a",
        "http://[1:2]",
        "http://[v.a]",
        "http://a:b",
        "http://a@b@c",
        "a:%2",
        "a:%zz",
        "a:b c",
        "a:ä",
        "a:[",
        "a:#b#",
        "a:{b}",
        "a:\n",
        "http://[::01.2.3.4]",
    ],
    "uri-reference": ["1:a", ":", "a b", "%", "//a:b", "[", "#a#b", "\\a", "ä", "a\n"],
    "uri-template": [
        "{",
        "}",
        "{}",
        "{a",
        "{a,}",
        "{a:0}",
        "{a:10000}",
        "{a:01}",
        "{a*b}",
        "{a b}",
        "a b",
        "%4",
        "{..a}",
        "<",
    ],
    "uuid": ["", "0" * 32, "{00000000-0000-0000-0000-000000000000}", "g0000000-0000-0000-0000-000000000000"],
    "hostname": [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "a b",
        "ä",
        "a" * 64,
        ".".join(["a" * 63] * 3 + ["b" * 62]),
        "xn--",
        "xn--a",
        "xn--X",
        "xn--abc-",
        "xn---9uc",
        "xn--aa---o47jg78q",
        "1.xn--4dbc5h",
        "xn--4dbc5h.1",
        "xn--" + "a" * 60,
    ],
    "idn-hostname": [
        "",
        "。",
        "a。",
        "Bücher",
        "ü-",
        "-ü",
        "üü--ü",
        "l·a",
        "\u0301a",
        "e\u0301",
        "a\u200db",
        "1.אב",
        "אa",
        "xn--x.ü",
        "ü" * 58,
        "☃",
        "ａ",
        "٠۰",
    ],
    "regex": ["(", "^(abc]", r"\a", "(?P<n>x)", "(?i)a", "[b-a]", "a**"],
}


def test_all_formats_of_the_drafts_are_known():
    assert frozenset(MEMBERS) == frozenset(NEAR_MISSES) == FORMATS
    assert format_parts("color") is None
    assert format_parts("Date") is None
    assert format_automaton("color") is None
    assert format_automaton("date") is None


@pytest.mark.parametrize("name", sorted(WITHOUT_PARTS))
def test_formats_without_parts_are_refused_by_name(name):
    with pytest.raises(UnsupportedFeatureError) as error:
        format_parts(name)
    assert error.value.feature == f"format: {name}"


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_members_and_near_misses(name):
    wrong = [text for text in MEMBERS[name] if not accepts(name, text)]
    wrong += [text for text in NEAR_MISSES[name] if accepts(name, text)]
    assert wrong == []


@pytest.mark.parametrize("name", WITH_PARTS)
def test_parts_are_plain_and_small(name):
    def kinds(node):
        yield type(node)
        for inner in getattr(node, "items", ()) or ([node.item] if hasattr(node, "item") else []):
            yield from kinds(inner)

    parts = format_parts(name)
    assert parts is format_parts(name)
    for part in parts:
        assert not {ast.Look, ast.Complement, ast.Intersection, ast.Atomic, ast.Begin, ast.End} & set(kinds(part))
        assert build_nfa(simplify(part)).n_states < 800


def test_days_exist_in_the_calendar():
    for year in (0, 1, 4, 100, 400, 1900, 1999, 2000, 2023, 2024, 2100, 2400, 9996, 9999):
        for month, day in itertools.product(range(14), range(33)):
            real = 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year or 2000, month)[1]
            assert accepts("date", f"{year:04}-{month:02}-{day:02}") == real


def test_leap_seconds_are_at_the_end_of_a_day_in_utc():
    random_ = random.Random(1)
    for hour, minute in itertools.product(range(24), range(60)):
        for sign in (1, -1):
            # the offset that fits, and some that nearly do
            fitting = (sign * (hour * 60 + minute - 1439)) % 1440
            for offset in (fitting, (fitting + 60) % 1440, (fitting + 1) % 1440, random_.randrange(1440)):
                text = f"{hour:02}:{minute:02}:60{'+' if sign > 0 else '-'}{offset // 60:02}:{offset % 60:02}"
                assert accepts("time", text) == (offset == fitting)
    assert not accepts("time", "23:58:60Z")


def test_groups_of_an_ipv6_address():
    """Every number of groups before and behind "::", with and without an IPv4 address."""
    for before, behind, mixed in itertools.product(range(10), range(10), (False, True)):
        head, tail = ["1"] * before, ["2"] * behind + ["1.2.3.4"] * mixed
        n_groups = before + behind + 2 * mixed
        assert accepts("ipv6", f"{':'.join(head)}::{':'.join(tail)}") == (n_groups <= 7)
        assert accepts("ipv6", ":".join(head + tail)) == (n_groups == 8)
        literal = f"a@[IPv6:{':'.join(head)}::{':'.join(tail)}]"
        assert accepts("email", literal) == (n_groups <= 6), literal


@pytest.mark.skipif(not SUITE.exists(), reason="the official suite is not here")
def test_official_suite():
    wrong, n_texts = [], 0
    with gzip.open(SUITE, "rt") as lines:
        for record in map(json.loads, lines):
            name = record["schema"].get("format") if isinstance(record["schema"], dict) else None
            if not record["file"].startswith("optional/format/") or name not in FORMATS - {"idn-hostname"}:
                continue
            texts = [test for test in record["tests"] if isinstance(test["data"], str)]
            n_texts += len(texts)
            wrong += [(name, test) for test in texts if accepts(name, test["data"]) != test["valid"]]
    assert wrong == []
    assert n_texts > 500


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "traits"),
    [
        ("ü", 0),
        ("1ü", BREAKS_BIDI),
        ("א", RTL),
        ("א1", RTL),
        ("א-1", RTL),
        ("א\u05b8", RTL),
        ("1א", None),
        ("א1\u0660", None),
        ("\u0660א", None),
        ("א-", None),
        ("ü--", None),
        ("lü", 0),
        ("l·l", 0),
        ("·l", None),
        ("α\u0375β", 0),
        ("α\u0375a", None),
        ("א\u05f3", RTL),
        ("a\u05f3", None),
        ("・", None),
        ("・あ", BREAKS_BIDI),
        ("क\u094d\u200d", BREAKS_BIDI),
        ("क\u094d\u200dक", 0),
        ("क\u200d", None),
        ("\u0628\u0650\u200c\u0650\u0628", RTL),
        ("\u0628\u200c1", None),
        ("\u1820\u200c\u1820", 0),
        ("\u0660\u06f0", None),
        ("\u0378", None),  # unassigned
        ("\u1e9e", None),  # a capital letter
        ("a\u0323\u0307", None),  # not in normal form C
        ("\u1ea1\u0307", 0),
    ],
)
def test_u_labels(label, traits):
    assert u_label(label) == traits
    assert a_label("xn--" + label.encode("punycode").decode()) == traits


@pytest.mark.parametrize(
    "label", ["ü", "bücher", "日本語", "a-b-日", "-ü-", "אב", "\U00020000\U00020001z", "éèêë-e", "ßà"]
)
def test_the_decoder_of_punycode_is_the_codec(label):
    deltas = deltas_of(label.encode("punycode").decode())
    assert deltas is not None
    assert deltas.is_complete
    assert deltas.text == label


# -- host names as automata -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hostname", "idn-hostname"])
def test_every_state_of_a_walk_can_end(name):
    """Wherever a walk stands, its witness leads to acceptance through live states."""
    random_ = random.Random(7)
    names = HostNames(name)
    alphabet = [char.encode() for char in ("a1-.xn" if name == "hostname" else "a-.xnüאب1。・ァl·\u200c")]
    prefixes = [b"", b"xn--", b"XN--a-", b"xn--" + b"a" * 49, b"1.", b"xn--4dbc5h.", b"a." * 124]
    for _ in range(12 if name == "hostname" else 5):
        for prefix in prefixes if name == "hostname" else prefixes[:3]:
            state = names.start
            for step in (prefix, *random_.choices(alphabet, k=6)):
                target = run(names, state, step)
                if target == 0:
                    continue
                state = target
                rest = names.witness(state)
                assert names.accepts(state) == (not rest)
                assert names.accepts(run(names, state, rest))


def run(names, state, text):
    for byte in text:
        state = int(names.row(state)[byte])
        if state == 0:
            break
    return state


def test_the_last_octets_of_a_label_in_xn():
    """Where one or two octets are left, life is what trying all of them says."""
    names = HostNames("hostname")
    octets = b"abcdefghijklmnopqrstuvwxyz0123456789-"
    bodies = (
        "a" * 54 + "-kb",
        "a" * 54 + "-zc",
        "a" * 57,
        "b" * 40 + "-" + "9" * 16,
        "-b" * 27 + "-kf",
        "a" * 54 + "-9a",
    )
    for body in bodies:
        label = b"xn--" + body.encode()
        assert len(label) in (61, 62)
        ends = [b"", *(bytes(end) for n in range(1, 64 - len(label)) for end in itertools.product(octets, repeat=n))]
        expected = any(a_label((label + end).decode()) is not None for end in ends)
        assert bool(run(names, names.start, label)) == expected, label


def test_ordinary_host_names_share_states():
    names = HostNames("hostname")
    for text in (b"www.example.org", b"ftp.another.net", b"abc.defghij.klm"):
        assert names.matches(text)
    assert names.n_states < 50
    rows = [names.row(run(names, names.start, text)) for text in (b"some", b"text")]
    assert rows[0] is rows[1]
    assert rows[0].dtype == np.int32
    assert rows[0].shape == (256,)


def test_states_of_host_names_are_limited():
    names = HostNames("hostname", Limits(max_states=20))
    with pytest.raises(LimitExceededError):
        names.matches(b"a" * 40)
    assert names.matches(b"a")  # still valid
    searching = HostNames("hostname", Limits(max_steps_per_call=500))
    with pytest.raises(LimitExceededError, match="max_steps_per_call"):
        searching.matches(b"xn--" + b"a" * 51 + b"-0009")


def test_bytes_that_are_no_characters_are_dead():
    names = host_names("idn-hostname")
    assert not names.matches(b"\xff")
    assert not names.matches(b"\xc0\xaf")
    assert not names.matches(b"\xed\xa0\x80")
    assert not names.matches("ü".encode()[:1])
