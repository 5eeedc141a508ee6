"""Shared fixtures.  The toy vocabulary, as a trie:

a(0) ─ b(2) ─ c(5)
b(1)
c(3) ─ a(6)        EOS 7, special <pad> 8; id 4 is a hole
"""

from __future__ import annotations

import os
import tempfile

# Tests neither read nor write the user's cache (compiled kernels stay where numba keeps them).
_cache = tempfile.TemporaryDirectory(prefix="outlines-tests-")
os.environ["OUTLINES_CACHE_DIR"] = _cache.name

import pytest  # noqa: E402  # the cache is chosen before anything reads the environment
from hypothesis import HealthCheck, settings  # noqa: E402

from outlines_core import Vocabulary  # noqa: E402

settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    derandomize=True,
)
settings.register_profile("explore", settings.get_profile("default"), derandomize=False, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def toy() -> Vocabulary:
    return Vocabulary(7, {"a": [0], "b": [1], "ab": [2], "c": [3], "abc": [5], "ca": [6]}, special_tokens={"<pad>": 8})
