"""The two packages and their modules, bottom to top: a module imports from its own line or above, never in a cycle.

The imports are read from the source, those inside functions too; imports for type checkers alone do not count.
A new module is placed in LAYERS, or in a folder that is; a private one (`_name`) stands as high as what it imports.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS = {
    "outlines_core": [
        ["errors", "limits", "types"],
        ["cache"],
        ["kernels"],
        ["regex"],
        ["grammar"],
        ["parsing"],
        ["json_schema"],
        ["pretrained"],
        ["vocabulary", "trie", "bitmask", "kernels.numpy", "kernels.torch", "kernels.mlx"],
        ["beginnings", "control"],
        [
            "regex_core",
            "json_inside",
            "json_masks",
            "json_stored",
            "json_objects",
            "json_tables",
            "json_states",
            "automaton",
        ],
        ["json_state_masks", "json_closing", "json_core", "json_explain", "grammar_core"],
        ["json_value", "grammar_closing", "grammar_composed"],
        ["index", "json_index"],
        ["batch"],
        ["guide"],
        ["compile"],
        ["grammar_compile"],
        ["fsm", "outlines_core"],
        ["warmup"],
        ["", "__main__"],
    ],
    "processors": [
        ["embedded", "grammars"],
        ["tokenizers", "masking"],
        ["guide"],
        ["logits"],
        ["generation"],
        ["lm"],
        ["inference"],
        ["bytes"],
        ["integrations"],
        ["cli"],
        ["", "__main__"],
    ],
}
# Imports inside a function that point upwards on purpose: (module, what it imports) -> why.
LATE = {
    ("outlines_core.index", "outlines_core.compile"): "Index(pattern, vocabulary), the older package's constructor",
    (
        "outlines_core.regex.nfa",
        "outlines_core.regex.look_dfa",
    ): "a complement inside a pattern is determinised on the way",
}
THIRD_PARTY = {"interegular", "lark", "llvmlite", "numba", "numpy"}  # llvmlite comes with numba


class Import(NamedTuple):
    """One imported module: full dotted name, line, whether it happens inside a function."""

    target: str
    line: int
    late: bool


def modules(package: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {name: path for package in LAYERS for name, path in modules(package).items()}


def imports(path: Path) -> list[Import]:
    return list(_imports(ast.parse(path.read_text(encoding="utf-8")), late=False))


def _imports(node: ast.AST, *, late: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.orelse:
            yield from _imports(child, late=late)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, late)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield Import(name if name in MODULES else str(node.module), node.lineno, late)
    late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, late=late)


def layer(module: str, seen: frozenset[str] = frozenset()) -> int:
    """The line of a module: that of its longest listed prefix; of a private module, the highest that it imports."""
    package, _, rest = module.partition(".")
    if rest.startswith("_") and rest != "__main__":
        below = {i.target for i in internal(module, package)} - seen - {module}
        return max((layer(target, seen | {module}) for target in below), default=0)
    while True:
        for rank, names in enumerate(LAYERS[package]):
            if rest in names:
                return rank
        if not rest or "." not in rest:
            raise AssertionError(f"{module} stands in no layer: place it in LAYERS of {Path(__file__).name}")
        rest = rest.rpartition(".")[0]


def internal(name: str, package: str) -> list[Import]:
    """What a module imports from its own package, but for the exceptions."""
    return [i for i in imports(MODULES[name]) if i.target.split(".")[0] == package and (name, i.target) not in LATE]


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    package = name.partition(".")[0]
    wrong = [
        f"line {i.line}: {i.target}"
        for i in internal(name, package)
        if i.target != name and layer(i.target) > layer(name)
    ]
    assert not wrong, f"{name} imports from above itself: {wrong}"


@pytest.mark.parametrize("package", LAYERS)
def test_no_cycles(package):
    graph = {name: {i.target for i in internal(name, package)} - {name} for name in MODULES if name.startswith(package)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_exceptions_are_late_and_still_needed():
    for (module, target), reason in LATE.items():
        found = [i for i in imports(MODULES[module]) if i.target == target]
        assert found, f"{module} no longer imports {target} ({reason}): remove the exception"
        assert all(i.late for i in found), f"{module} may import {target} only inside a function"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("outlines_core")])
def test_core_knows_no_model_library(name):
    for found in imports(MODULES[name]):
        top = found.target.split(".")[0]
        assert top not in ("processors", "transformers"), f"{name}, line {found.line}"
        late = name == "outlines_core.fsm.guide" and found.late  # an instruction's tokens are a tensor
        assert top != "torch" or late or name == "outlines_core.kernels.torch", f"{name}, line {found.line}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("outlines_core")])
def test_core_needs_only_its_dependencies(name):
    allowed = THIRD_PARTY | set(sys.stdlib_module_names) | {"outlines_core"}
    allowed |= {"outlines_core.kernels.torch": {"torch"}, "outlines_core.kernels.mlx": {"mlx"}}.get(name, set())
    wrong = {i.target for i in imports(MODULES[name]) if not i.late and i.target.split(".")[0] not in allowed}
    assert not wrong, f"{name} imports {wrong} when it is loaded"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import outlines_core", ["numba", "torch", "transformers"]),
        ("import outlines_core.kernels", ["numba", "torch"]),
        ("import outlines_core.kernels.numpy", ["torch"]),
        ("import outlines_core; outlines_core.json_schema.STRING", ["numba", "torch", "transformers"]),
        ("import outlines_core.fsm.guide", ["numba", "torch"]),
        ("import processors", ["numba", "transformers"]),
        ("import processors.tokenizers", ["transformers"]),
        ("import processors.embedded", ["torch", "transformers"]),
        ("from processors.lm import CachedCausalLM, LMContext", ["numba", "torch", "transformers"]),
        ("from processors.inference import smc_standard, generate_posterior", ["numba", "torch", "transformers"]),
        ("from processors.bytes import ByteBeamState, ByteLM", ["numba", "torch", "transformers"]),
        ("import processors.cli", ["numba", "torch", "transformers"]),
    ],
)
def test_what_an_import_leaves_out(statement, absent):
    code = f"import sys\n{statement}\nprint(*(name for name in {absent!r} if name in sys.modules))"
    if statement == "import processors.cli":
        pytest.importorskip("typer")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_reader_of_imports(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "import a.b\nfrom outlines_core import limits, Vocabulary\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\ndef f():\n    import c\n"
    )
    assert imports(source) == [
        ("a.b", 1, False),
        ("outlines_core.limits", 2, False),
        ("outlines_core", 2, False),
        ("typing", 3, False),
        ("c", 7, True),
    ]
