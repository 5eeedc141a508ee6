"""The Markdown report of a run, from its records."""

from __future__ import annotations

import pathlib
from typing import Any

from budgets import verdicts
from summaries import at

__all__ = ["markdown"]

_HEAD = (
    "Written by `python benchmarks`; the numbers are in the JSON files beside this one (samples as quantiles at steps "
    "of 0.1 %). Ratios are ours / theirs, both sides in one run. What each benchmark measures, and its bias, stands at "
    "the top of its file under `benchmarks/`."
)
COLUMNS = ("mean", "p25", "p50", "p90", "p99", "p99.9", "max")


def markdown(records: dict[str, dict[str, Any]], expected: dict[str, str], pictures: dict[str, str]) -> str:
    """The report.

    Args:
        records: by name of the part; each has `machine`, `command`, `date`, `seconds`, `load`, and `summary` or
            `failed`.
        expected: every part of the suite and what it measures; one without a record is reported as not measured.
        pictures: file name -> caption.
    """
    lines = ["# Benchmarks: the record of a run", "", _HEAD, ""]
    lines += ["## Parts", "", *_parts(records, expected), "", "## Budgets", "", *_budgets(records), ""]
    if pictures:
        lines += ["## Pictures", ""]
        for name, caption in pictures.items():
            lines += [f"![{caption}]({name})", "", f"*{caption}.*", ""]
    for name, what in expected.items():
        record = records.get(name)
        if record is None:
            continue
        lines += [f"## {name}", "", what, "", f"`{record['command']}`", ""]
        if "failed" in record:
            lines += [f"**Failed: {record['failed']}**", ""]
        summary = record.get("summary")
        if summary and "engines" in summary and "common" in summary:
            lines += _json_tables(summary)
        if summary and "grammars" in summary:
            lines += _grammar_tables(summary)
        if record.get("output"):
            lines += ["<details><summary>what it printed</summary>", "", "```text", record["output"], "```", "",
                      "</details>", ""]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _parts(records: dict[str, dict[str, Any]], expected: dict[str, str]) -> list[str]:
    rows, machines = [], []
    for name in expected:
        record = records.get(name)
        if record is None:
            rows.append([name, "**not measured**", "", "", ""])
            continue
        if record["machine"] not in machines:
            machines.append(record["machine"])
        state = f"**failed**: {record['failed']}" if "failed" in record else "measured"
        state += "".join(f"; {note}" for note in record.get("notes", []))
        if record.get("quick"):
            state += " (`--quick`: few samples)"
        load = f"{record['load'][0]:.1f} to {record['load'][1]:.1f}"
        rows.append([name, state, record["date"], f"{record['seconds']:.0f} s", load])
    lines = table(["part", "", "date", "took", "load average"], rows)
    for machine in machines:
        used = [name for name in expected if name in records and records[name]["machine"] == machine]
        where = f" ({', '.join(used)})" if len(machines) > 1 else ""
        lines += ["", f"Measured{where} with: " + "; ".join(f"{key} {value}" for key, value in machine.items()) + "."]
    return lines


def _budgets(records: dict[str, dict[str, Any]]) -> list[str]:
    found = verdicts(records)
    marks = {True: "reached", False: "**not reached**", None: "**not measured**"}
    counts = [sum(v.reached is state for v in found) for state in (True, False, None)]
    head = f"{counts[0]} reached, {counts[1]} not reached, {counts[2]} not measured."
    trials = [name for name, record in records.items() if record.get("quick")]
    if trials:
        head += f" **Trials with few samples, hence no measurements: {', '.join(trials)}.**"
    return [head, "", *table(["what", "budget", "measured", ""],
                             [[v.what, v.budget, v.value, marks[v.reached]] for v in found])]  # fmt: skip


def _row(name: str, found: dict[str, Any]) -> list[str]:
    return [name, str(found["n"]), *(f"{at(found, column):.1f}" for column in COLUMNS)]


def _json_tables(summary: dict[str, Any]) -> list[str]:
    about, engines = summary["about"], summary["engines"]
    rows = []
    for name, found in engines.items():
        version = about.get("versions", {}).get(name, "")
        instances = ", ".join(f"{n} {kind}" for kind, n in found["instances"].items()) or "none wrong"
        shown = [found["schemas"], found["compiled"], found["refused"], found["passing"]]
        rows.append(
            [f"{name} {version}", *map(str, shown), f"{100 * found['passing'] / found['schemas']:.2f} %", instances]
        )
    lines = table(["", "schemas", "compiled", "refused", "exact on all instances", "", "instances"], rows)
    for kind, title in (("ttfm", "Compile + first mask"), ("tbm", "Mask + commit of a token"),
                        ("new", "Mask + commit where the state was not visited before")):  # fmt: skip
        rows = [_row(name, found[kind]) for name, found in engines.items() if found[kind]]
        lines += ["", f"{title}, microseconds, over what each engine compiles:", ""] if rows else []
        lines += table(["", "n", *COLUMNS], rows) if rows else []
    for others, common in summary["common"].items():
        ours = common["engines"]["ours"]
        rows = []
        for peer in common["engines"]:
            if peer != "ours":
                for kind in ("ttfm", "tbm"):
                    theirs = common["engines"][peer][kind]
                    if ours[kind] and theirs:
                        ratios = [f"{at(ours[kind], c) / at(theirs, c):.3f}" for c in COLUMNS]
                        rows.append([f"{kind.upper()} ours / {peer}", *ratios])
        lines += ["", f"Ratios over the {common['schemas']} schemas that ours, {others} compile:", ""]
        lines += table(["", *COLUMNS], rows)
    lines += [""]
    for name, found in engines.items():
        if found["refusals"]:
            kinds = sorted(found["refusals"].items(), key=lambda pair: -pair[1])
            lines += [f"Refused by {name}: " + ", ".join(f"{kind} {n}" for kind, n in kinds[:8]) + ".", ""]
    return lines


def _grammar_tables(summary: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for grammar, engines in summary["grammars"].items():
        rows = []
        for name, found in engines.items():
            if not found["tbm"]:
                rows.append([name, found.get("refused", "no token in time"), *[""] * (len(COLUMNS) + 3)])
                continue
            cold, warm = (f"{found[key] / 1e6:.1f}" if key in found else "" for key in ("cold", "warm"))
            title = f"{name} {found.get('version', '')}" + (" **WRONG**" if found["wrong"] else "")
            rows.append([title, cold, warm, *_row("", found["tbm"])[1:], f"{found['rss_used']:.0f}"])
        for name, found in engines.items():
            ours = engines.get("ours", {}).get("tbm")
            if name != "ours" and found["tbm"] and ours:
                ratios = [f"{at(ours, c) / at(found['tbm'], c):.3f}" for c in COLUMNS]
                rows.append([f"ours / {name}", f"{engines['ours']['cold'] / found['cold']:.3f}", "", "", *ratios, ""])
        lines += [f"### {grammar}", ""]
        lines += table(["", "cold ms", "warm ms", "n", *(f"{c} us" for c in COLUMNS), "RSS MiB"], rows) + [""]
    return lines


def size_of(directory: pathlib.Path) -> int:
    """Bytes of a record, pictures included."""
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
