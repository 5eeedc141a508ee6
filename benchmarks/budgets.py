"""The budgets of the design, judged from the records of a run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from summaries import at

__all__ = ["Verdict", "verdicts"]

TBM = ("mean", "p50", "p90", "p99", "p99.9")
STANDARD = ("email", "complex_phone", "simple_phone", "date", "time", "ip", "url", "ssn",
            "complex_span_constrained_relation_extraction")  # fmt: skip


class Verdict(NamedTuple):
    """One budget.

    Attributes:
        what, budget: in words.
        value: what was measured; why it was not, if `reached` is None.
    """

    what: str
    budget: str
    value: str
    reached: bool | None


def verdicts(records: dict[str, dict[str, Any]]) -> list[Verdict]:
    """All budgets; a record that failed or is not there makes them `not measured`, never absent."""
    found: list[Verdict] = []
    for what, part, budget, judge in _BUDGETS:
        record = records.get(part)
        if record is None:
            found.append(Verdict(what, budget, f"not measured: no record of {part}", None))
        elif "failed" in record:
            found.append(Verdict(what, budget, f"not measured: {part} failed: {record['failed']}", None))
        else:
            n = len(found)
            try:
                found += (Verdict(f"{what}{more}", budget, value, ok) for more, value, ok in judge(record["summary"]))
                if len(found) == n:
                    found.append(Verdict(what, budget, f"not measured: no such case in the record of {part}", None))
            except (KeyError, IndexError, StopIteration, statistics.StatisticsError) as error:
                lacks = f"not measured: the record of {part} lacks {error}"
                found.append(Verdict(what, budget, lacks, None))
    return found


Judged = Iterator[tuple[str, str, bool]]


def _ratios(kind: str, peer: str, bounds: dict[str, float]) -> Callable[[Any], Judged]:
    def judge(record: Any) -> Judged:
        common = record["common"][peer]
        ours, theirs = (common["engines"][name][kind] for name in ("ours", peer))
        for name, bound in bounds.items():
            ratio = at(ours, name) / at(theirs, name)
            yield f", {name}", f"{ratio:.3f} ({at(ours, name):.1f} / {at(theirs, name):.1f} us)", ratio <= bound

    return judge


def _slowest(record: Any) -> Judged:
    seconds = at(record["engines"]["ours"]["ttfm"], "max") / 1e6
    yield "", f"{seconds:.2f} s", seconds <= 1.0


def _passing(record: Any) -> Judged:
    ours = record["engines"]["ours"]
    share = ours["passing"] / ours["schemas"]
    yield ", passing", f"{100 * share:.2f} % of {ours['schemas']}", share >= 0.99
    for kind in ("wrongly accepted", "wrongly refused", "errors"):
        n = ours["instances"].get(kind, 0)
        yield f", instances {kind if kind != 'errors' else 'that end with an error'}", str(n), n == 0


def _eager(record: Any) -> Judged:
    for name in STANDARD:
        if name not in record:
            yield f": {name}", "not measured in this run", False
            continue
        ours, theirs = record[name]["ours"], record[name]["pypi"]
        if "eager_s" not in theirs:
            yield f": {name}", f"{ours['eager_s']:.3f} s; theirs: {next(iter(theirs.items()))}", True
            continue
        ratio = ours["eager_s"] / theirs["eager_s"]
        yield f": {name}", f"{ratio:.4f} ({ours['eager_s']:.3f} / {theirs['eager_s']:.3f} s)", ratio <= 0.05


def _lazy(record: Any) -> Judged:
    nine = [name for name in STANDARD if name in record]
    name, slowest = max(((n, record[n]["ours"]["lazy_s"]) for n in nine), key=lambda pair: pair[1])
    yield "", f"{slowest * 1e3:.2f} ms (the slowest: {name})", slowest < 5e-3


def _python_grammar(record: Any) -> Judged:
    for name in ("lark_python", "python"):
        if name in record["grammars"]:
            row = record["grammars"][name]["ours"]
            mean = at(row["tbm"], "mean")
            yield f" ({name})", f"{mean:.1f} us, {row['tbm']['n']} tokens", mean <= 50 and not row["wrong"]


def _python_start(record: Any) -> Judged:
    seconds = record["ttfm"]["grammar: python"]["kept_s"]
    yield "", f"{seconds:.3f} s", seconds < 0.5


def _batch(peer: str) -> Callable[[Any], Judged]:
    def judge(record: Any) -> Judged:
        for case in record["cases"]:
            for mine, which in (("ours first", "new states"), ("ours again", "states visited before")):
                where = f", B={case['batch']}, {case['dtype']}, {case['threads']} threads, {which}"
                ratio = case["ratios"].get(f"step: {mine} / {peer}")
                if ratio is not None:
                    yield where, f"{ratio:.3f}", ratio <= 0.5
                else:
                    failed = {side: found["failed"] for side, found in case["engines"].items() if "failed" in found}
                    yield where, f"not measured: {failed or 'no such peer'}", False

    return judge


def _bandwidth(record: Any) -> Judged:
    for case in record["cases"]:
        where = f", B={case['batch']}, {case['dtype']}, {case['threads']} threads"
        ours = case["engines"]["ours first"]
        in_place, new = ours["apply"] / ours["bound"], ours["new"] / ours["bound_new"]
        yield f"{where}, in place", f"{in_place:.2f}", in_place <= 1.3
        yield f"{where}, to new memory", f"{new:.2f}", new <= 1.3


def _generate(record: Any) -> Judged:
    for name, sides in record["tokens"].items():
        for side in ("warm", "cold"):
            ratio = sides[side]["ratio"]
            yield f": {name}, {side}", f"{ratio:.3f}", ratio >= 0.97


def _bytes(record: Any) -> Judged:
    ours, theirs = (record["results"][name] for name in ("processors", "genlm-bytes"))
    for k in ours:
        first, second = (statistics.median(r["all"] for r in side[k]) for side in (ours, theirs))
        yield f", K={k}", f"{first / second:.3f} ({first * 1e3:.2f} / {second * 1e3:.2f} ms)", first / second <= 0.1


def _memory(record: Any) -> Judged:
    schemas = record["schemas"]
    for kept in ("kept", "dropped"):
        mib = schemas[kept]["mib"]
        yield f" of {schemas['schemas']} schemas, automata {kept}", f"{mib:.0f} MiB", mib < 1024


def _flat(record: Any) -> Judged:
    for part in ("per_request", "long_lived"):
        soak = record[part]
        value = f"{soak['before_mib']:.0f} -> {soak['after_mib']:.0f} MiB, {soak['requests']} requests"
        if "blocks" in soak:
            value += "; blocks in use {:,.0f} -> {:,.0f}".format(*soak["blocks"])
        yield f", {part.replace('_', ' ')}", value, soak["flat"]


def _nbytes(record: Any) -> Judged:
    found = record["nbytes"]
    yield (
        ", median",
        f"{found['median'] / 1e3:.0f} kB (p90 {found['p90'] / 1e3:.0f}, max {found['max'] / 1e3:.0f})",
        (found["median"] < 1e6),
    )


def _start(record: Any) -> Judged:
    for name, found in record["start"].items():
        if name.endswith(" mask, warm"):
            loading = found["stages_s"].get("transformers loads the tokenizer", 0.0)
            value = f"{found['total_s'] - loading:.2f} s"
            value += f", and transformers' own {loading:.2f} s for the tokenizer" if loading else ""
            yield f": {name}", value, found["total_s"] - loading < 2


def _jit(record: Any) -> Judged:
    yield "", f"{record['jit']['cold_s']:.0f} s", record["jit"]["cold_s"] < 60
    later = record["jit"]["compiled_later"]
    yield ", compiled by requests after it", f"{len(later)} kernels", not later


_HALF = dict.fromkeys(TBM, 0.5)
_BUDGETS: list[tuple[str, str, str, Callable[[Any], Judged]]] = [
    (f"MaskBench TBM / llguidance, {order}", part, "<= 0.5x", _ratios("tbm", "llguidance", _HALF))
    for part, order in (
        ("json_schema_in_order", "properties in the schema's order"),
        ("json_schema", "properties in any order"),
        ("json_schema_fresh", "an automaton per instance"),
    )
] + [
    ("MaskBench TBM / xgrammar", "json_schema_xgrammar", "<= 1.0x",
     _ratios("tbm", "xgrammar", {"p25": 1.0, "p50": 1.0})),
    ("MaskBench TTFM / llguidance", "json_schema_in_order", "<= 1.0x", _ratios("ttfm", "llguidance", {"p50": 1.0})),
    ("MaskBench TTFM / llguidance", "json_schema_in_order", "<= 0.5x", _ratios("ttfm", "llguidance", {"p99": 0.5})),
    ("MaskBench TTFM, slowest", "json_schema_in_order", "<= 1 s", _slowest),
    ("MaskBench TTFM, slowest, any order", "json_schema", "<= 1 s", _slowest),
    ("MaskBench schemas, any order", "json_schema", ">= 99 %, then 0", _passing),
    ("eager index / PyPI outlines_core", "regex_index", "<= 0.05x", _eager),
    ("lazy first mask of a regex", "regex_index", "< 5 ms", _lazy),
    ("Lark: Python's grammar, mean per token", "grammar", "<= 50 us", _python_grammar),
    ("Lark: Python's grammar, load + first mask warm", "startup", "< 0.5 s", _python_start),
    ("batch step / llguidance", "batch", "<= 0.5x", _batch("llguidance")),
    ("batch step / xgrammar", "batch", "<= 0.5x", _batch("xgrammar")),
    ("apply alone / memory bandwidth", "batch", "<= 1.3x", _bandwidth),
    ("generate() with a constraint / without", "generate_speed", ">= 0.97x", _generate),
    ("byte-level LM, time per byte / genlm-bytes", "byte_lm", "<= 0.1x", _bytes),
    ("memory", "memory", "< 1 GiB", _memory),
    ("memory under a soak", "memory", "flat", _flat),
    ("a compiled, used schema", "memory", "< 1 MB", _nbytes),
    ("new process: import + first mask", "startup", "< 2 s", _start),
    ("kernels compiled from nothing", "startup", "< 60 s, then 0", _jit),
]  # fmt: skip
