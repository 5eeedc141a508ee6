"""JSON Schema `format`s, judged from outside the engine: the grammars of the RFCs written down once more.

`judge` says True, False or None: None where the RFC leaves room or where nothing here decides it with certainty, so
that a test can leave the text alone. What has no grammar here is asked of the library that `jsonschema` itself uses.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import unicodedata
from collections.abc import Callable

from tests.pattern_oracle import compiles

__all__ = ["FORMATS", "SAMPLES", "judge"]

_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[zZ]|([+-])([0-9]{2}):([0-9]{2}))")
_DURATION = re.compile(
    r"P(?:[0-9]+W|(?=[0-9T])(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)?"
    r"(?:T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S))?)"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONG_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~]|\\[ -~])*")'
_MAIL = re.compile(rf"({_LOCAL})@(\[.*\]|.*)", re.DOTALL)
_POINTER = r"(?:/(?:[^/~]|~[01])*)*"
_UUID = re.compile(r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


def _fullmatch(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def _date(text: str) -> bool:
    found = _DAY.fullmatch(text)
    if found is None:
        return False
    year, month, day = map(int, found.groups())
    try:
        dt.date(year or 2000, month, day)  # the year 0000 is a leap year that Python does not have
    except ValueError:
        return False
    return True


def _time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    hour, minute, second = (int(found[k]) for k in (1, 2, 3))
    ahead, by = found[4], (int(found[5] or 0), int(found[6] or 0))
    if hour > 23 or minute > 59 or second > 60 or by[0] > 23 or by[1] > 59:
        return False
    offset = by[0] * 60 + by[1]
    return second < 60 or (hour * 60 + minute + (offset if ahead == "-" else -offset)) % 1440 == 1439


def _date_time(text: str) -> bool:
    return len(text) > 10 and text[10] in "tT" and _date(text[:10]) and _time(text[11:])


def _duration(text: str) -> bool | None:
    if _DURATION.fullmatch(text):
        return True
    return None if _DURATION.fullmatch(text.upper()) and text.isascii() else False  # ABNF letters: of any case?


def _ipv6(text: str) -> bool:
    if not text.isascii() or "%" in text or "/" in text:
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    tail = text.rpartition(":")[2]
    return "." not in tail or _IPV4.fullmatch(tail) is not None


def _hostname(text: str) -> bool | None:
    if _HOST.fullmatch(text) is None or len(text) > 253:
        return False
    labels = text.lower().split(".")
    if any(label.startswith("xn--") for label in labels):
        return False if "xn--" in labels else _idn_hostname(text)
    return None if any(label[2:4] == "--" for label in labels) else True  # RFC 1123 allows what RFC 5890 reserves


def _idn_hostname(text: str) -> bool | None:
    try:
        import idna
    except ImportError:
        return None
    if _HOST.fullmatch(text) and len(text) <= 253 and all(label[2:4] != "--" for label in text.split(".")):
        return True
    if text.endswith((".", "\u3002", "\uff0e", "\uff61")) or re.search("[A-Z]", text):
        return None
    try:
        idna.encode(text)
    except (idna.IDNAError, UnicodeError):
        return False
    right_to_left = any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text)
    return None if right_to_left and "." in text else True  # the rule about whole names is not in the library


def _is_address_literal(text: str) -> bool:
    """RFC 5321's IPv4-address-literal: up to three digits each, so zeros may come first."""
    return re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", text) is not None and all(
        int(number) <= 255 for number in text.split(".")
    )


def _mail_domain(text: str, *, international: bool) -> bool | None:
    if text.startswith("["):
        inside = text[1:-1]
        if _is_address_literal(inside) or (inside[:5].upper() == "IPV6:" and _ipv6(inside[5:])):
            return True
        return (
            None if text.endswith("]") and text.isascii() and ":" in inside and inside[:5].upper() != "IPV6:" else False
        )
    if len(text) > 253:
        return None
    if international and not text.isascii():
        return _idn_hostname(text) or None  # U-labels, or whatever has none of the ASCII signs? The RFCs differ
    if _HOST.fullmatch(text):
        return True if "--" not in text else None
    return None if _LONG_HOST.fullmatch(text) else False  # RFC 5321's rule sets no bound on a label, RFC 1035 does


def _email(text: str) -> bool | None:
    found = _MAIL.fullmatch(text)
    if found is None:
        return False
    domain = _mail_domain(found[2], international=False)
    return None if domain and len(found[1]) > 64 else domain


def _idn_email(text: str) -> bool | None:
    plain = re.sub("[^\x00-\x7f]", "a", text)  # UTF8-non-ascii is an atext and a qtext of RFC 6531
    if text.isascii():
        return _email(text)
    local = _MAIL.fullmatch(plain)
    if local is None:
        return False
    return None if len(local[1]) > 64 else _mail_domain(text[len(local[1]) + 1 :], international=True)


def _resource_identifier(rule: str) -> Callable[[str], bool | None]:
    def check(text: str) -> bool | None:
        try:
            import rfc3987
        except ImportError:
            return None
        if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
            return False
        if re.search("[\ue000-\uf8ff\U000f0000-\U0010ffff]", text):
            return None  # private use: in queries only; left to the engine's own tests
        if "[" in text:
            return None  # the library takes zeros before an embedded IPv4 number and no IPvFuture with a capital V
        return bool(rfc3987.match(text, rule=rule)) if "\n" not in text else False

    return check


_PCT = "%[0-9A-Fa-f]{2}"
_NAME = rf"(?:[A-Za-z0-9_]|{_PCT})(?:\.?(?:[A-Za-z0-9_]|{_PCT}))*(?::[1-9][0-9]{{0,3}}|\*)?"
_TEMPLATE = _fullmatch(
    rf"(?:[!#$&(-;=?-\[\]_a-z~\u00a0-\ud7ff\ue000-\U0010ffff]|{_PCT}|\{{[+#./;?&=,!@|]?{_NAME}(?:,{_NAME})*\}})*"
)


def _uri_template(text: str) -> bool | None:
    if _TEMPLATE(text):
        return None if re.search(r"\{[=,!@|]|[\ue000-\uffff]|[^\x00-\uffff]", text) else True
    return None if "'" in text else False  # RFC 6570 forgets the apostrophe; its erratum 6937 allows it


FORMATS: dict[str, Callable[[str], bool | None]] = {
    "date": _date,
    "date-time": _date_time,
    "duration": _duration,
    "email": _email,
    "hostname": _hostname,
    "idn-email": _idn_email,
    "idn-hostname": _idn_hostname,
    "ipv4": lambda text: _IPV4.fullmatch(text) is not None,
    "ipv6": _ipv6,
    "iri": _resource_identifier("IRI"),
    "iri-reference": _resource_identifier("IRI_reference"),
    "json-pointer": _fullmatch(_POINTER),
    "regex": compiles,
    "relative-json-pointer": _fullmatch(rf"(?:0|[1-9][0-9]*)(?:#|{_POINTER})"),
    "time": _time,
    "uri": _resource_identifier("URI"),
    "uri-reference": _resource_identifier("URI_reference"),
    "uri-template": _uri_template,
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
}

SAMPLES: dict[str, tuple[str, ...]] = {
    "date": ("2024-02-29", "2023-02-29", "1999-12-31", "0000-01-01"),
    "date-time": (
        "2024-02-29T12:00:00Z",
        "1998-12-31t23:59:60.5z",
        "2020-01-01T00:00:00+23:59",
        "2020-01-01 00:00:00Z",
    ),
    "duration": ("P1Y2M3DT4H5M6S", "P4W", "PT0S", "P", "P1YT", "PT1D"),
    "email": ("a@b", "first.last@example.org", '"a b"@c.de', "a..b@c", "me@[127.0.0.1]"),
    "hostname": ("example.org", "a", "-a", "a_b", "a.b-c.d1"),
    "idn-email": ("ü@bücher.example", "a@b", "@"),
    "idn-hostname": ("bücher.example", "a.b", "〮a"),
    "ipv4": ("127.0.0.1", "255.255.255.255", "256.0.0.1", "1.2.3", "01.2.3.4"),
    "ipv6": ("::", "::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1::2::3", "fe80::1%a"),
    "iri": ("http://ü.example/ä?ö#ß", "urn:a", "//a"),
    "iri-reference": ("ä", "/a/b", "#ö", "a b"),
    "json-pointer": ("", "/", "/a~0b~1c/0", "a", "/~2"),
    "regex": ("^a+$", "(", "[a-z]"),
    "relative-json-pointer": ("0", "1/a", "2#", "01", "-1", ""),
    "time": ("12:00:00Z", "23:59:60Z", "12:00:60Z", "12:00:00", "01:02:03.4-05:00"),
    "uri": ("http://example.org/a?b#c", "urn:isbn:1", "a", "http://[::1]:80/", "mailto:a@b"),
    "uri-reference": ("a", "#b", "../c", "//d/e", "\\", ""),
    "uri-template": ("/a/{b}", "{?c*,d:3}", "{", "a b"),
    "uuid": (
        "01234567-89ab-cdef-0123-456789ABCDEF",
        "01234567-89ab-cdef-0123-456789abcde",
        "0123456789abcdef0123456789abcdef",
    ),
}
"""Some of each, right ones and wrong ones."""


def judge(name: str, text: str) -> bool | None:
    """Is `text` of format `name`?  True for formats that no draft defines; None where this module cannot tell."""
    check = FORMATS.get(name)
    return True if check is None else check(text)
