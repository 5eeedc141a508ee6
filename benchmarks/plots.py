"""The pictures of a report, from the records of a run.  Needs matplotlib (extra `bench`)."""

from __future__ import annotations

import math
import pathlib
from typing import Any

__all__ = ["MATPLOTLIB_MISSING", "draw", "has_matplotlib"]

MATPLOTLIB_MISSING = "the plots need matplotlib: pip install '.[bench]' (or leave them out with --no-plots)"
COLOURS = {"ours": "#c2185b", "llguidance": "#1565c0", "xgrammar": "#2e7d32", "outlines": "#6d4c41"}
_TICKS = (0.0, 0.5, 0.75, 0.9, 0.99, 0.999)


def has_matplotlib() -> bool:
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def draw(records: dict[str, dict[str, Any]], directory: pathlib.Path) -> dict[str, str]:
    """Write the pictures that the records have data for; {file name: caption}."""
    import matplotlib as mpl

    mpl.use("Agg")
    found: dict[str, str] = {}
    usable = {name: record["summary"] for name, record in records.items() if "summary" in record}
    for function, parts in ((_tbm, _JSON), (_ttfm, _JSON), (_passing, _JSON), (_grammars, ("grammar",)),
                            (_batch, ("batch",)), (_soak, ("memory",))):  # fmt: skip
        for part in parts:
            if part in usable:
                found |= function(part, usable[part], directory)
    return found


_ORDER = {
    "json_schema_in_order": "properties in the schema's order",
    "json_schema": "properties in any order",
    "json_schema_xgrammar": "properties in the schema's order, a sample",
}
_JSON = tuple(_ORDER)


def _figure(n_panels: int = 1) -> tuple[Any, list[Any]]:
    import matplotlib.pyplot as plt

    columns = 2 if n_panels == 4 else min(3, n_panels)
    rows = math.ceil(n_panels / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.4 if n_panels == 1 else 4.4 * columns, 4.0 * rows))
    panels = list(axes.flat) if n_panels > 1 else [axes]
    for unused in panels[n_panels:]:
        unused.set_visible(False)
    return figure, panels[:n_panels]


def _save(figure: Any, path: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _percentiles(panel: Any, curves: dict[str, dict[str, Any]]) -> None:
    """Curves over percentiles, the upper ones spread out; microseconds on a log scale."""
    for name, found in curves.items():
        quantiles = found["quantiles"]
        steps = len(quantiles) - 1
        xs = [-math.log10(1 - min(k / steps, 1 - 0.5 / steps)) for k in range(steps + 1)]
        panel.plot(xs, [max(q, 1e-3) for q in quantiles], label=name, color=COLOURS.get(name), linewidth=1.6)
    panel.set_yscale("log")
    panel.set_xticks([-math.log10(1 - q) for q in _TICKS], [f"{100 * q:g}" for q in _TICKS])
    panel.set_xlabel("percentile")
    panel.set_ylabel("microseconds")
    panel.grid(alpha=0.3)
    if curves:
        panel.legend(frameon=False)


def _widest(summary: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The schemas common to the most engines; all of ours if there were no peers."""
    if not summary["common"]:
        ours = summary["engines"]["ours"]
        return f"{ours['compiled']} schemas", {"ours": ours}
    common = max(summary["common"].values(), key=lambda one: len(one["engines"]))
    return f"{common['schemas']} schemas that all compile", common["engines"]


def _tbm(part: str, summary: dict[str, Any], directory: pathlib.Path) -> dict[str, str]:
    of, engines = _widest(summary)
    curves = {name: found["tbm"] for name, found in engines.items() if found["tbm"]}
    figure, [panel] = _figure()
    _percentiles(panel, curves)
    panel.set_title(f"JSON Schema: mask + commit of a token\n{of}, {_ORDER[part]}", fontsize=10)
    _save(figure, directory / f"{part}_tbm.png")
    return {f"{part}_tbm.png": f"Mask + commit of a token, {of}, {_ORDER[part]}"}


def _ttfm(part: str, summary: dict[str, Any], directory: pathlib.Path) -> dict[str, str]:
    of, engines = _widest(summary)
    figure, [panel] = _figure()
    for name, found in engines.items():
        if found["ttfm"]:
            quantiles = found["ttfm"]["quantiles"]
            shares = [100 * k / (len(quantiles) - 1) for k in range(len(quantiles))]
            panel.plot([q / 1e3 for q in quantiles], shares, label=name, color=COLOURS.get(name), linewidth=1.6)
    panel.set_xscale("log")
    panel.set_xlabel("milliseconds to compile and make the first mask")
    panel.set_ylabel("% of schemas")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    panel.set_title(f"JSON Schema: time to first mask\n{of}, {_ORDER[part]}", fontsize=10)
    _save(figure, directory / f"{part}_ttfm.png")
    return {f"{part}_ttfm.png": f"Time to first mask, {of}, {_ORDER[part]}"}


def _passing(part: str, summary: dict[str, Any], directory: pathlib.Path) -> dict[str, str]:
    figure, [panel] = _figure()
    engines = summary["engines"]
    names = list(engines)[::-1]
    left = [0.0] * len(names)
    for label, colour in (("passing", "#2e7d32"), ("wrong about an instance", "#b71c1c"), ("refused", "#9e9e9e")):
        widths = []
        for name in names:
            found = engines[name]
            of = {"passing": found["passing"], "refused": found["refused"]}
            widths.append(100 * of.get(label, found["compiled"] - found["passing"]) / max(1, found["schemas"]))
        panel.barh(names, widths, left=left, color=colour, label=label)
        for y, (x, width) in enumerate(zip(left, widths, strict=True)):
            if width > 3:
                panel.text(x + width / 2, y, f"{width:.1f}", ha="center", va="center", color="white", fontsize=9)
        left = [x + width for x, width in zip(left, widths, strict=True)]
    panel.set_xlabel("% of schemas")
    panel.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15), fontsize=9)
    panel.set_title(f"JSON Schema: exact on all instances of a schema\n{_ORDER[part]}", fontsize=10)
    _save(figure, directory / f"{part}_passing.png")
    return {f"{part}_passing.png": f"Schemas passing, wrong, refused; ours with {_ORDER[part]}"}


def _grammars(part: str, summary: dict[str, Any], directory: pathlib.Path) -> dict[str, str]:
    grammars = summary["grammars"]
    figure, panels = _figure(len(grammars))
    for panel, (grammar, engines) in zip(panels, grammars.items(), strict=True):
        _percentiles(panel, {name: found["tbm"] for name, found in engines.items() if found["tbm"]})
        panel.set_title(grammar, fontsize=10)
    _save(figure, directory / f"{part}_tbm.png")
    return {f"{part}_tbm.png": "Lark grammars: mask + commit of a token (no peer has indentation, hence no Python)"}


def _batch(part: str, summary: dict[str, Any], directory: pathlib.Path) -> dict[str, str]:
    cases = summary["cases"]
    settings = sorted({(case["dtype"], case["threads"]) for case in cases}, reverse=True)
    figure, panels = _figure(len(settings))
    for panel, setting in zip(panels, settings, strict=True):
        chosen = [case for case in cases if (case["dtype"], case["threads"]) == setting]
        for engine in dict.fromkeys(name for case in chosen for name in case["engines"]):
            points = [
                (c["batch"], c["engines"][engine]["step"]) for c in chosen if "step" in c["engines"].get(engine, {})
            ]
            style = ":" if engine.endswith("again") else "-"
            name = engine.removesuffix(" first")
            colour = COLOURS.get(engine.split()[0])
            panel.plot(*zip(*points, strict=True), style, marker="o", label=name, color=colour) if points else None
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("rows")
        panel.set_ylabel("microseconds a step")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
        panel.set_title(f"{setting[0]}, {setting[1]} threads", fontsize=10)
    _save(figure, directory / f"{part}.png")
    return {f"{part}.png": "A step of a batch on the CPU: masks filled and applied"}


def _soak(part: str, summary: dict[str, Any], directory: pathlib.Path) -> dict[str, str]:
    soaks = {name: summary[name]["marks"] for name in ("per_request", "long_lived") if "marks" in summary.get(name, {})}
    if not soaks:
        return {}
    figure, [panel] = _figure()
    for name, marks in soaks.items():
        panel.plot([m["requests"] for m in marks], [m["mib"] for m in marks], label=name.replace("_", " "))
    panel.set_ylim(bottom=0)
    panel.set_xlabel("requests")
    panel.set_ylabel("MiB above the baseline")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    panel.set_title("Resident memory under a soak", fontsize=10)
    _save(figure, directory / f"{part}_soak.png")
    return {f"{part}_soak.png": "Resident memory under a soak of requests"}
