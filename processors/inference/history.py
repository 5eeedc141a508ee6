"""What a run did, step by step, as JSON and as a page to look at.

A record is ``{"step", "mode", "particles": [{"contents", "logweight", "weight_incr"}]}``. Modes: "init" after `start`,
"smc_step" after each step, "resample" after each resampling, where "ancestors" says which particle of the record
before each one is a copy of. Log-weights are text, since JSON has no -Infinity.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from processors.inference.model import Model

__all__ = ["History", "render"]


class History:
    """Records of a run."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._step = 0

    def add(self, mode: str, particles: Sequence[Model], ancestors: Sequence[int] | None = None) -> None:
        """Note the particles as they are now."""
        before = self.records[-1]["particles"] if self.records else []
        source = range(len(particles)) if ancestors is None else ancestors
        self._step += mode == "smc_step"
        rows = []
        for particle, k in zip(particles, source, strict=True):
            old = float(before[k]["logweight"]) if k < len(before) else 0.0
            change = particle.weight - old if old > -math.inf else 0.0
            rows.append(
                {
                    "contents": particle.string_for_serialization(),
                    "logweight": _number(particle.weight),
                    "weight_incr": _number(change),
                }
            )
        record: dict[str, Any] = {"step": self._step, "mode": mode, "particles": rows}
        if ancestors is not None:
            record["ancestors"] = [int(k) for k in ancestors]
        self.records.append(record)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the records as JSON."""
        _write(path, json.dumps(self.records, indent=1, ensure_ascii=False) + "\n")

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page: one file, nothing to serve."""
        _write(path, render(self.records))


def _write(path: str | os.PathLike[str], text: str) -> None:
    """Lone surrogates, which have no UTF-8, become ``\\ud800``: in JSON that is what they were."""
    Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")


def _number(value: float) -> str:
    return repr(value).replace("inf", "Infinity")


_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title><style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; max-width: 80rem }
table { border-collapse: collapse; width: 100% } td { padding: 1px .6em; vertical-align: top }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; color: #555 }
td.bar { width: 12rem } td.bar div { background: #48c; height: 1em; margin-top: .25em }
td.text { white-space: pre-wrap; font-family: ui-monospace, monospace } tr.dead { opacity: .4 }
b { background: #fe9; font-weight: normal } summary { cursor: pointer; margin-top: .5rem }
</style></head><body><h1>$title</h1>
<p>One section a record. A bar is a particle's share of the weight; what is new in its text is marked.</p>
$records
</body></html>
""")
_RECORD = Template("""<details open><summary>step $step, $mode: log mean weight $mean</summary><table>
<tr><td class="n">particle</td><td class="n">from</td><td class="n">log weight</td><td>share</td><td>text</td></tr>
$rows</table></details>""")
_ROW = Template("""<tr$dead><td class="n">$place</td><td class="n">$source</td><td class="n">$logweight</td>\
<td class="bar"><div style="width:$share%"></div></td><td class="text">$old<b>$new</b></td></tr>
""")


def render(records: Sequence[dict[str, Any]], title: str = "Sequential Monte Carlo") -> str:
    """The records of a run as a page of HTML."""
    sections = []
    before: list[str] = []
    for record in records:
        logweights = [float(p["logweight"]) for p in record["particles"]]
        top = max(logweights, default=-math.inf)
        weights = [math.exp(w - top) if w > -math.inf else 0.0 for w in logweights]
        total = sum(weights)
        sources = record.get("ancestors", range(len(logweights)))
        rows = []
        for i, (particle, source) in enumerate(zip(record["particles"], sources, strict=True)):
            text = particle["contents"]
            known = before[source] if source < len(before) else ""
            cut = len(known) if text.startswith(known) else 0
            rows.append(
                _ROW.substitute(
                    dead="" if weights[i] else ' class="dead"',
                    place=i,
                    source=source,
                    logweight=f"{logweights[i]:.3f}",
                    share=f"{100 * weights[i] / total:.1f}" if total else "0",
                    old=html.escape(text[:cut]),
                    new=html.escape(text[cut:]),
                )
            )
        mean = top + math.log(total / len(weights)) if total else -math.inf
        sections.append(
            _RECORD.substitute(step=record["step"], mode=record["mode"], mean=f"{mean:.3f}", rows="".join(rows))
        )
        before = [p["contents"] for p in record["particles"]]
    return _PAGE.substitute(title=html.escape(title), records="\n".join(sections))
