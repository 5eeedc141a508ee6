"""Texts for benchmarks/grammar.py: real ones where a Python installation has them, else from a seeded generator."""

from __future__ import annotations

import importlib.metadata
import json
import random
import sysconfig
import tokenize
from pathlib import Path

_TABLES = {
    "customers": ["id", "name", "email", "country", "created_at", "is_active"],
    "orders": ["id", "customer_id", "status", "total", "placed_at", "shipping_method"],
    "order_items": ["order_id", "product_id", "quantity", "unit_price", "discount"],
    "products": ["id", "title", "category", "price", "stock", "supplier_id"],
    "reviews": ["id", "product_id", "rating", "body", "posted_at"],
}
_WORDS = ["pending", "shipped", "North America", "it''s late", "2024-05-01", "express", "%phone%", "gold", "n/a"]


class _Sql:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.upper = rng.random() < 0.7

    def statement(self) -> str:
        text = self.rng.choice([self.select, self.select, self.select, self.insert, self.update, self.delete])()
        return text if self.upper else text.lower()

    def column(self, alias: str, table: str) -> str:
        return f"{alias}.{self.rng.choice(_TABLES[table])}"

    def value(self) -> str:
        rng = self.rng
        return rng.choice(
            [str(rng.randrange(5000)), f"{rng.uniform(0, 900):.2f}", f"'{rng.choice(_WORDS)}'", "NULL", "?1"]
        )

    def condition(self, alias: str, table: str, depth: int = 2) -> str:
        rng, column = self.rng, self.column(alias, table)
        kinds = [
            f"{column} {rng.choice(['=', '<>', '<', '>=', 'LIKE'])} {self.value()}",
            f"{column} BETWEEN {rng.randrange(50)} AND {rng.randrange(50, 900)}",
            f"{column} IS NOT NULL",
            f"{column} IN ({', '.join(self.value() for _ in range(rng.randint(1, 4)))})",
        ]
        if depth:
            inner = rng.choice(list(_TABLES))
            kinds.append(
                f"EXISTS (SELECT 1 FROM {inner} AS s WHERE s.{_TABLES[inner][0]} = {column}"
                f" AND {self.condition('s', inner, depth - 1)})"
            )
            kinds.append(
                f"({self.condition(alias, table, depth - 1)} OR NOT {self.condition(alias, table, depth - 1)})"
            )
        return rng.choice(kinds)

    def select(self) -> str:
        rng = self.rng
        tables = rng.sample(list(_TABLES), rng.randint(1, 3))
        columns = [self.column(f"t{k}", table) for k, table in enumerate(tables) for _ in range(rng.randint(1, 2))]
        columns.append(
            rng.choice(["count(*) AS n", "max(t0.id) AS top", "CASE WHEN t0.id > 10 THEN 'big' ELSE 'small' END"])
        )
        text = f"SELECT {', '.join(columns)}\nFROM {tables[0]} AS t0"
        for k, table in enumerate(tables[1:], 1):
            text += f"\n{rng.choice(['JOIN', 'LEFT JOIN'])} {table} AS t{k} ON t0.id = {self.column(f't{k}', table)}"
        if rng.random() < 0.8:
            text += f"\nWHERE {self.condition('t0', tables[0])}"
            if rng.random() < 0.5:
                text += f"\n  AND {self.condition('t0', tables[0], 1)}"
        if rng.random() < 0.4:
            text += f"\nGROUP BY {columns[0]} HAVING count(*) > {rng.randrange(20)}"
        if rng.random() < 0.5:
            text += f"\nORDER BY {columns[0]} DESC LIMIT {rng.randrange(1, 100)}"
        return text + ";"

    def insert(self) -> str:
        table = self.rng.choice(list(_TABLES))
        rows = [f"({', '.join(self.value() for _ in _TABLES[table])})" for _ in range(self.rng.randint(1, 3))]
        return f"INSERT INTO {table} ({', '.join(_TABLES[table])}) VALUES {', '.join(rows)};"

    def update(self) -> str:
        table = self.rng.choice(list(_TABLES))
        changed = self.rng.sample(_TABLES[table], 2)
        return (
            f"UPDATE {table} SET {changed[0]} = {self.value()}, {changed[1]} = {changed[1]} + 1"
            f" WHERE {self.condition(table, table, 1)};"
        )

    def delete(self) -> str:
        table = self.rng.choice(list(_TABLES))
        return f"DELETE FROM {table} WHERE {self.condition(table, table, 1)};"


def _sum(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.15:
        return rng.choice([str(rng.randrange(10_000)), f"{rng.uniform(0, 100):.3f}", "x", "rate", "total_2", "6.02e23"])
    kind = rng.randrange(8)
    if kind == 0:
        return f"({_sum(rng, depth - 1)})"
    if kind == 1:
        arguments = ", ".join(_sum(rng, depth - 1) for _ in range(rng.randint(1, 3)))
        return f"{rng.choice(['sqrt', 'max', 'f'])}({arguments})"
    if kind == 2:
        return f"-{_sum(rng, depth - 1)}"
    return f"{_sum(rng, depth - 1)} {rng.choice(['+', '-', '*', '/', '%', '**'])} {_sum(rng, depth - 1)}"


def _python(n: int, seed: int) -> list[str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in sorted(root.rglob("*.py")) if not {"site-packages", "test", "tests"} & {*path.parts}]
    texts = []
    for path in random.Random(seed).sample(paths, len(paths)):
        if len(texts) == n:
            break
        if 1000 < path.stat().st_size < 40_000:
            with tokenize.open(path) as stream:
                texts.append(stream.read())
    return texts


def _json(n: int, seed: int) -> list[str]:
    """What installed packages say of themselves."""
    rng = random.Random(seed)
    found = {d.metadata["Name"]: d.metadata.json for d in importlib.metadata.distributions()}
    names = rng.sample(sorted(found), min(n, len(found)))
    return [json.dumps(found[name], indent=rng.choice([None, 2]), ensure_ascii=False) for name in names]


def texts(grammar: str, n: int, seed: int) -> list[str]:
    """About `n` texts of a grammar."""
    rng = random.Random(seed)
    match grammar:
        case "python" | "lark_python":
            return _python(n, seed)
        case "json":
            return _json(n, seed)
        case "sql":
            return ["\n".join(_Sql(rng).statement() for _ in range(rng.randint(1, 4))) for _ in range(n)]
        case "arithmetic":
            return [_sum(rng, 6) for _ in range(n)]
    raise ValueError(grammar)
