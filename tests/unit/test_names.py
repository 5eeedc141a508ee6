"""What the packages export: sorted, there, and loaded only when asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("outlines_core", "processors")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.mark.parametrize("name", MODULES)
def test_exported_names_are_sorted_and_exist(name: str) -> None:
    if name == "outlines_core.kernels.mlx":
        pytest.importorskip("mlx.core")
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert list(exported) == sorted(exported, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    for one in exported:
        assert hasattr(module, one), f"{name}.{one}"
    if module.__doc__ is None:
        raise AssertionError(f"{name} does not say what it is")


@pytest.mark.parametrize("package", ["outlines_core", "processors"])
def test_unknown_names_are_attribute_errors(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match="no attribute"):
        module.no_such_name  # noqa: B018
    assert set(module.__all__) <= set(dir(module))
