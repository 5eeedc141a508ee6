"""What a record keeps of a benchmark's samples: curves of quantiles in place of millions of numbers.

A curve is the 1,001 quantiles at steps of 0.1 %, from the least sample to the largest, in microseconds to four digits;
beside it stand how many samples there were, and their mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

__all__ = ["at", "curve", "summary", "thinned"]

STEPS = 1000


def curve(nanoseconds: Sequence[float]) -> dict[str, Any]:
    """Samples as a curve in microseconds; {} if there is none.

    >>> curve([1000.0, 3000.0])["mean"]
    2.0
    """
    if not nanoseconds:
        return {}
    ordered = sorted(nanoseconds)
    last = len(ordered) - 1
    quantiles = [digits(ordered[min(last, k * len(ordered) // STEPS)] / 1e3) for k in range(STEPS + 1)]
    return {"n": len(ordered), "mean": sum(ordered) / len(ordered) / 1e3, "quantiles": quantiles}


def at(found: dict[str, Any], name: str) -> float:
    """`mean`, `max` or a quantile such as `p99.9` of a curve."""
    if name == "mean":
        return float(found["mean"])
    q = 1.0 if name == "max" else float(name[1:]) / 100
    return float(found["quantiles"][round(q * STEPS)])


def digits(value: float, n: int = 4) -> float:
    return value if value == 0 or not math.isfinite(value) else round(value, n - 1 - math.floor(math.log10(abs(value))))


def thinned(value: Any) -> Any:
    """A record with every list of more than 1,001 numbers as its quantiles, and other numbers to six digits."""
    if isinstance(value, dict):
        return {key: thinned(item) for key, item in value.items()}
    if isinstance(value, list):
        if len(value) > STEPS + 1 and all(isinstance(x, int | float) for x in value):
            ordered = sorted(value)
            last = len(ordered) - 1
            return {"n": len(value), "quantiles": [digits(ordered[k * last // STEPS]) for k in range(STEPS + 1)]}
        return [thinned(item) for item in value]
    return digits(value, 6) if isinstance(value, float) else value


def summary(script: str, raw: Any) -> Any:
    """What the record of a benchmark keeps of what it wrote."""
    if script == "json_schema":
        return _json_schema(raw)
    if script == "grammar":
        return _grammar(raw)
    return thinned(raw)


def _json_schema(raw: dict[str, Any]) -> dict[str, Any]:
    results: dict[str, list[dict[str, Any]]] = raw["results"]
    engines = {}
    for name, rows in results.items():
        compiled = [row for row in rows if "ttfm" in row]
        wrong: Counter[str] = Counter()
        for row in compiled:
            for _, why in row["wrong"]:
                wrong[f"wrongly {why}" if why in ("accepted", "refused") else "errors"] += 1
        engines[name] = {
            "schemas": len(rows),
            "compiled": len(compiled),
            "refused": len(rows) - len(compiled),
            "passing": sum(not row["wrong"] for row in compiled),
            "instances": dict(wrong),
            "refusals": dict(Counter(row["refused"].partition(":")[0][:60] for row in rows if "refused" in row)),
            **_curves(compiled),
            "new": curve([x for row in compiled for x in row["new"]]),
        }
    ours, *peers = results
    common: dict[str, Any] = {}
    for others in [*([peer] for peer in peers), *([peers] if len(peers) > 1 else [])]:
        sides = [ours, *others]
        both = [k for k in range(len(results[ours])) if all("ttfm" in results[side][k] for side in sides)]
        chosen = {side: _curves([results[side][k] for k in both]) for side in sides}
        common[" and ".join(others)] = {"schemas": len(both), "engines": chosen}
    return {"about": raw["about"], "engines": engines, "common": common}


def _curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"ttfm": curve([row["ttfm"] for row in rows]), "tbm": curve([x for row in rows for x in row["tbm"]])}


def _grammar(raw: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for grammar, engines in raw["results"].items():
        found[grammar] = {
            name: {
                **{key: thinned(value) for key, value in row.items() if key not in ("tbm", "new")},
                "tbm": curve(row.get("tbm", [])),
                "new": curve(row.get("new", [])),
            }
            for name, row in engines.items()
        }
    return {"about": raw["about"], "grammars": found}
