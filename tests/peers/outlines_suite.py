"""Outlines' own offline tests on this package: of its types, and of its outlines_core backend.

Run it in an environment with outlines, pytest and torch in which this package stands in for PyPI's outlines_core
(CONTRIBUTING.md), on the unpacked sources of the same release of outlines, which hold the tests:

    pip download --no-deps --no-binary outlines outlines==1.3.3 && tar xzf outlines-1.3.3.tar.gz
    HF_HUB_OFFLINE=1 python tests/peers/outlines_suite.py outlines-1.3.3

(and `pip install airportsdata iso3166`). The tests load a small model from the hub; they get the tiny one that ships
with this project instead. Those of llama.cpp and MLX are left out.
"""

from __future__ import annotations

import importlib.metadata
import sys
import types
from pathlib import Path

import outlines
import pytest
import transformers

MODEL = Path(__file__).resolve().parents[2] / "processors" / "data" / "embedded"


class Stand:
    """A pytest plugin: hub names lead to the folder, `llama_cpp` is there to be imported."""

    def pytest_configure(self):
        for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer):
            load = kind.from_pretrained
            kind.from_pretrained = lambda name, *args, load=load, **options: load(
                MODEL if "/" in str(name) and not Path(name).exists() else name, *args, **options
            )
        if "llama_cpp" not in sys.modules:
            stub = types.ModuleType("llama_cpp")
            stub.Llama = type("Llama", (), {"from_pretrained": staticmethod(lambda **_: None)})
            sys.modules["llama_cpp"] = stub
            outlines.from_llamacpp = lambda model: model


def main(sources):
    for name in ("outlines", "outlines_core"):
        print(name, importlib.metadata.version(name))
    tests = [f"{sources}/tests/types", f"{sources}/tests/backends/test_outlines_core.py"]
    options = ["-q", "-x" if "-x" in sys.argv else "-ra", "-p", "no:cacheprovider", f"--rootdir={sources}"]
    return pytest.main([*options, *tests, "-k", "not numpy and not mlx"], plugins=[Stand()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
