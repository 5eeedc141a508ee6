r"""The strings that satisfy a JSON Schema ``format``, as regular languages.

A format is a tuple of *parts*, AST nodes over content code points whose intersection is the format. One language is
split in parts where a single automaton would have to remember two independent things at once: the leap second of a
time ties hours to hours *and* minutes to minutes of the offset, 1,440 combinations in one automaton, 24 + 60 in two.
Every part describes whole strings and is free of look-arounds and algebra, so it becomes a plain NFA; parts behind the
first are checks, loose wherever the first part is strict.

The rules are written as in the RFCs that the drafts name, one Python name for a rule, in regex instead of ABNF.
Where the texts leave a choice:

* ``date-time``, ``time``: seconds are 60 only where it is 23:59 in UTC, on any day (RFC 3339, 5.7); year 0000 exists.
* ``duration``: capitals only, as ISO 8601 has it (the remark about lower case in RFC 3339, 5.6, is on ``T`` and ``Z``).
* ``email``: the rule Mailbox of RFC 5321, so without the sizes of 4.5.3.1, which are no part of it. Of the general
  address literals only the tag that is registered, IPv6, exists.
* ``idn-email``: a label of the domain may hold any non-ASCII characters, as RFC 6531 lets mail systems pass them on;
  whether it is registrable (RFC 5891) is not looked at, nor do the official tests want that.
* ``ipv4``, ``ipv6``: no leading zeros in decimal octets, no zone, no prefix length.
* ``iri``: without the seven formatting characters that RFC 3987, 4.1, forbids.
* ``uri-template``: all that the grammar has, the operators reserved for the future too; the apostrophe of erratum 6937.
* ``relative-json-pointer``: the draft of 2018 that the schema drafts name, so without index manipulation.

Three formats have no parts, but a `format_automaton`. ``regex`` is not regular at all. Whether a host name with "xn--"
or with characters beyond ASCII is one is a finite question, but no regular expression of a sensible size answers it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final
from typing import Literal as OneOf

from outlines_core.errors import UnsupportedFeatureError
from outlines_core.json_schema.host_names import HostNames
from outlines_core.json_schema.regex_syntax import RegexSyntax
from outlines_core.limits import DEFAULT_LIMITS, Limits
from outlines_core.regex.ast import Empty, Literal, Node, Repeat
from outlines_core.regex.build import alternation, concat
from outlines_core.regex.parser import parse

__all__ = ["FORMATS", "LAZY_FORMATS", "format_automaton", "format_parts"]


@cache
def _regex(pattern: str) -> Node:
    """A rule as a pattern: Python's dialect, the dot being any character."""
    return parse(pattern, flags=re.DOTALL)


def _text(text: str) -> Node:
    return Literal(text)


def _then(*items: Node) -> Node:
    return concat(items, (0, 0))


def _either(*items: Node) -> Node:
    return alternation(items, (0, 0))


def _optional(item: Node) -> Node:
    return Repeat(item, 0, 1)


# -- RFC 3339: dates, times, durations --------------------------------------------------------------------------------

# a leap year is a multiple of 4 in its last two digits unless these are 00, then in its first two
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    "(?:[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[Zz]|[+\-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

_SECONDS = "[0-9]+S"
_MINUTES = f"[0-9]+M(?:{_SECONDS})?"
_HOURS = f"[0-9]+H(?:{_MINUTES})?"
_DAYS = "[0-9]+D"
_MONTHS = f"[0-9]+M(?:{_DAYS})?"
_YEARS = f"[0-9]+Y(?:{_MONTHS})?"
_CLOCK = f"T(?:{_HOURS}|{_MINUTES}|{_SECONDS})"
_DURATION = f"P(?:(?:{_DAYS}|{_MONTHS}|{_YEARS})(?:{_CLOCK})?|{_CLOCK}|[0-9]+W)"


@cache
def _leap_seconds() -> tuple[Node, ...]:
    """Of the time of day: where the second is 60, it is 23:59 in UTC.

    The local time is then (23 - oh):(59 - om) at an offset of -oh:om, and oh:(om - 1) at +oh:om, but (oh - 1):59 at
    +oh:00. So the hours depend on the offset's hours and on whether its minutes are 00, and the tens and units of the
    minutes on those of the offset's minutes.
    """
    between = _regex("[0-9:.]*")

    def case(local: Node, offset: Node) -> Node:
        return _then(local, between, offset)

    def hours(sign: str, offset: Callable[[int], int], minutes: str) -> Node:
        cases = (case(_text(f"{h:02}"), _text(f"{sign}{offset(h):02}:")) for h in range(24))
        return _then(_either(*cases), _regex(minutes))

    zulu = _regex("[Zz]")
    of_hours = [
        hours("+", lambda h: h, "0[1-9]|[1-5][0-9]"),
        hours("+", lambda h: (h + 1) % 24, "00"),
        hours("-", lambda h: 23 - h, ".."),
        case(_text("23"), zulu),
    ]
    of_tens = [
        case(_regex(f".{{3}}{d}"), _regex(f"[+].{{3}}(?:{d}[1-9]|{(d + 1) % 6}0)|-.{{3}}{5 - d}.")) for d in range(6)
    ]
    of_units = [case(_regex(f".{{4}}{d}"), _regex(f"[+].{{4}}{(d + 1) % 10}|-.{{4}}{9 - d}")) for d in range(10)]
    other = _regex(".{6}[0-5].+")
    return (
        _either(other, *of_hours),
        _either(other, *of_tens, case(_regex(".{3}5"), zulu)),
        _either(other, *of_units, case(_regex(".{4}9"), zulu)),
    )


# -- RFC 4291: addresses ----------------------------------------------------------------------------------------------

_OCTET = "(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"


def _ipv4(octet: str = _OCTET) -> Node:
    return _regex(rf"{octet}(?:\.{octet}){{3}}")


@cache
def _ipv6(octet: str = _OCTET, gap: int = 1) -> Node:
    """Eight groups in hexadecimal, the last two perhaps an IPv4 address; "::" for `gap` or more groups of zeros."""
    colon, group = _regex(":"), _regex("[0-9A-Fa-f]{1,4}")

    def groups(total: int, most: int, end: Node, behind: Callable[[int], Node]) -> Node:
        """`total` groups and `end`, or at most `most` groups around "::"; ``behind(n)`` is up to n of them."""
        node = end
        for before in range(total - 1, 0, -1):
            node = _then(colon, group, node)
            if before <= most:
                node = _either(node, _then(_regex("::"), behind(most - before)))
        return _either(_then(group, node), _then(_regex("::"), behind(most)))

    def closed(n: int) -> Node:
        return _optional(_then(group, Repeat(_then(colon, group), 0, n - 1))) if n else Empty()

    def open_(n: int) -> Node:
        return Repeat(_then(group, colon), 0, n)

    return _either(groups(8, 8 - gap, Empty(), closed), _then(groups(6, 6 - gap, colon, open_), _ipv4(octet)))


# -- RFC 5321, 6531: mailboxes ----------------------------------------------------------------------------------------

_SNUM = "(?:[0-9]{1,2}|[01][0-9]{2}|2[0-4][0-9]|25[0-5])"
_BEYOND_ASCII = r"\u0080-\U0010ffff"


def _mailbox(beyond: str) -> Node:
    """Mailbox; `beyond`: the non-ASCII characters that RFC 6531 adds."""
    atom = rf"[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~{beyond}]+"
    quoted = rf'"(?:[ !#-\[\]-~{beyond}]|\\[ -~])*"'
    label = rf"[A-Za-z0-9{beyond}](?:[A-Za-z0-9\-{beyond}]*[A-Za-z0-9{beyond}])?"
    return _then(
        _regex(rf"(?:{atom}(?:\.{atom})*|{quoted})@"),
        _either(
            _regex(rf"{label}(?:\.{label})*"),
            _then(
                _regex(r"\["),
                # "::" stands for two groups or more here, and leading zeros are allowed
                _either(_ipv4(_SNUM), _then(_regex("[Ii][Pp][Vv]6:"), _ipv6(_SNUM, 2))),
                _regex(r"\]"),
            ),
        ),
    )


# -- RFC 3986, 3987, 6570: resource identifiers -----------------------------------------------------------------------

_PCT = "%[0-9A-Fa-f]{2}"
_UNRESERVED = r"A-Za-z0-9\-._~"
_SUB_DELIMS = "!$&'()*+,;="
_PLANES = "".join(rf"\U{n:04x}{0x1000 if n == 14 else 0:04x}-\U{n:04x}fffd" for n in range(1, 15))
_UCSCHAR = rf"\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef{_PLANES}"
# RFC 3987, 4.1: "IRIs MUST NOT contain bidirectional formatting characters (LRM, RLM, LRE, RLE, PDF, LRO, and RLO)"
_IRI_CHAR = _UCSCHAR.replace(r"\ud7ff", r"\u200d\u2010-\u2029\u202f-\ud7ff", 1)
_IPRIVATE = r"\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"


def _identifier(ucs: str, private: str, *, relative: bool) -> Node:
    """URI; with `ucs` and (in queries) `private`: IRI; `relative`: or a relative reference."""

    def run(chars: str, quantifier: str) -> str:
        return f"(?:[{_UNRESERVED}{_SUB_DELIMS}{chars}{ucs}]|{_PCT}){quantifier}"

    segments = f"(?:/{run(':@', '*')})*"
    rooted = f"/(?:{run(':@', '+')}{segments})?"
    rootless = f"{run(':@', '+')}{segments}"
    future = rf"[Vv][0-9A-Fa-f]+\.[{_UNRESERVED}{_SUB_DELIMS}:]+"
    authority = _then(
        _regex(f"//(?:{run(':', '*')}@)?"),
        _either(
            _regex(run("", "*")),  # an IPv4 address has the form of a name too
            _then(_regex(r"\["), _either(_ipv6(), _regex(future)), _regex(r"\]")),
        ),
        _regex(f"(?::[0-9]*)?{segments}"),
    )
    scheme = _regex(r"[A-Za-z][A-Za-z0-9+\-.]*:")
    tail = _regex(rf"(?:\?{run(':@/?' + private, '*')})?(?:#{run(':@/?', '*')})?")
    if not relative:
        return _then(scheme, _either(authority, _regex(f"{rooted}|{rootless}|")), tail)
    no_colon = f"{run('@', '+')}{segments}"  # in the first segment, it would end a scheme
    return _then(
        _either(
            _then(_optional(scheme), _either(authority, _regex(f"(?:{rooted})?"))),
            _then(scheme, _regex(rootless)),
            _regex(no_colon),
        ),
        tail,
    )


def _uri_template() -> Node:
    literal = rf"(?:[!#$&-;=?-\[\]_a-z~{_UCSCHAR}{_IPRIVATE}]|{_PCT})"
    varchar = f"(?:[A-Za-z0-9_]|{_PCT})"
    variable = rf"{varchar}(?:\.?{varchar})*(?::[1-9][0-9]{{0,3}}|\*)?"
    return _regex(rf"(?:{literal}|{{[+#./;?&=,!@|]?{variable}(?:,{variable})*}})*")


# -- RFC 6901, 4122 ---------------------------------------------------------------------------------------------------

_JSON_POINTER = "(?:/(?:[^~/]|~[01])*)*"
_UUID = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"


def _date_time() -> tuple[Node, ...]:
    date = _regex(".{11}")
    return _regex(f"{_DATE}[Tt]{_TIME}"), *(_then(date, part) for part in _leap_seconds())


_RULES: Final[dict[str, Callable[[], tuple[Node, ...]]]] = {
    "date": lambda: (_regex(_DATE),),
    "date-time": _date_time,
    "duration": lambda: (_regex(_DURATION),),
    "email": lambda: (_mailbox(""),),
    "idn-email": lambda: (_mailbox(_BEYOND_ASCII),),
    "ipv4": lambda: (_ipv4(),),
    "ipv6": lambda: (_ipv6(),),
    "iri": lambda: (_identifier(_IRI_CHAR, _IPRIVATE, relative=False),),
    "iri-reference": lambda: (_identifier(_IRI_CHAR, _IPRIVATE, relative=True),),
    "json-pointer": lambda: (_regex(_JSON_POINTER),),
    "relative-json-pointer": lambda: (_regex(f"(?:0|[1-9][0-9]*)(?:#|{_JSON_POINTER})"),),
    "time": lambda: (_regex(_TIME), *_leap_seconds()),
    "uri": lambda: (_identifier("", "", relative=False),),
    "uri-reference": lambda: (_identifier("", "", relative=True),),
    "uri-template": lambda: (_uri_template(),),
    "uuid": lambda: (_regex(_UUID),),
}
_NO_PARTS: Final = {
    "hostname": 'whether a label "xn--..." is valid shows only when it is decoded',
    "idn-hostname": "whether a label fits into 63 octets shows only when it is encoded",
    "regex": "the patterns of ECMAScript are not a regular language",
}
FORMATS: Final = frozenset((*_RULES, *_NO_PARTS))
"""All names that a draft from 4 to 2020-12 defines."""
LAZY_FORMATS: Final = frozenset(_NO_PARTS)
"""Those that `format_automaton` knows, and `format_parts` does not."""


@cache
def format_parts(name: str) -> tuple[Node, ...] | None:
    """The languages whose intersection is the set of strings that satisfy the format `name`.

    Returns:
        Nodes over content code points that describe whole strings; None for a name that no draft defines.

    Raises:
        UnsupportedFeatureError: the format is one of `LAZY_FORMATS`.

    >>> from outlines_core.regex.language import Language
    >>> [Language(part).matches("2001:db8::1") for part in format_parts("ipv6")]
    [True]
    """
    if name in _NO_PARTS:
        raise UnsupportedFeatureError(
            f"the format {name} is no combination of regular expressions: {_NO_PARTS[name]} (see format_automaton)",
            feature=f"format: {name}",
        )
    rule = _RULES.get(name)
    return None if rule is None else rule()


def format_automaton(name: str, limits: Limits = DEFAULT_LIMITS) -> HostNames | RegexSyntax | None:
    """A new automaton that alone recognises the format; None for a name that is not in `LAZY_FORMATS`."""
    if name == "regex":
        return RegexSyntax(limits)
    host_names: tuple[OneOf["hostname", "idn-hostname"], ...] = ("hostname", "idn-hostname")
    return next((HostNames(known, limits) for known in host_names if known == name), None)
