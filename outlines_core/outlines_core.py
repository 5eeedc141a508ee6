"""The compiled submodule of the PyPI package `outlines_core` 0.2 under its name: some code imports from it.

`__version__` says which release of that package is equalled; the version of this one is `outlines_core.__version__`.
"""

from __future__ import annotations

from outlines_core import json_schema
from outlines_core.guide import Guide
from outlines_core.index import Index
from outlines_core.vocabulary import Vocabulary

__all__ = ["Guide", "Index", "Vocabulary", "json_schema"]

__version__ = "0.2.14+dropin"
