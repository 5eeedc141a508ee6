"""Content-addressed stores: small arrays on disk, bounded objects in memory.

A key is a hash of *everything* the value depends on, so a value is never stale and never needs invalidation. On disk
an entry is one file, ``magic · format version · sha256 of the payload · npz payload``, written to a temporary name and
moved into place: readers see nothing or all of it, whichever of several processes wins. A file that does not check out
is deleted and counts as a miss; a directory that cannot be written simply stores nothing. No pickle anywhere.

The directory is ``$OUTLINES_CACHE_DIR``, else ``$XDG_CACHE_HOME/outlines-processors``, else
``~/.cache/outlines-processors``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["DiskStore", "LruCache", "content_key", "decode_arrays", "default_store", "encode_arrays"]

_MAGIC = b"outlines-processors\x00"
_VERSION = b"0001"
_HEADER = len(_MAGIC) + len(_VERSION) + 32
_log = logging.getLogger(__name__)

V = TypeVar("V")


def content_key(*parts: str | bytes | int) -> str:
    """A hex digest of the parts; lengths are hashed too, so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{type(part).__name__}{len(raw)}:".encode())
        digest.update(raw)
    return digest.hexdigest()


def default_directory() -> Path:
    if configured := os.environ.get("OUTLINES_CACHE_DIR"):
        return Path(configured)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "outlines-processors"
    return Path(os.path.expanduser("~")) / ".cache" / "outlines-processors"


class DiskStore:
    """Named numpy arrays under a key, on disk.  Safe against concurrent processes and corrupt files.

    Args:
        directory: where; made when first written to.
        max_bytes: past it the least recently used files go.
    """

    def __init__(self, directory: Path, *, max_bytes: int = 2 * 2**30) -> None:
        self.directory, self.max_bytes = Path(directory), max_bytes

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.bin"

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """The arrays stored under `key` (read-only), or None."""
        path = self._path(key)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        arrays = decode_arrays(raw)
        if arrays is None:
            _log.warning("dropping a corrupt cache file: %s", path.name)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # recently used
        return arrays

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Store `arrays` under `key`; False if the directory cannot be written."""
        raw = encode_arrays(arrays)
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(raw)
                os.replace(name, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            _log.info("the cache directory is not writable: %s", error)
            return False
        self._trim()
        return True

    def _trim(self) -> None:
        files = []
        for path in self.directory.glob("??/*.bin"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def encode_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays as checked bytes: what a file of the store holds."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    payload = buffer.getvalue()
    return _MAGIC + _VERSION + hashlib.sha256(payload).digest() + payload


def decode_arrays(raw: bytes) -> dict[str, NDArray[Any]] | None:
    """The inverse of `encode_arrays` (the arrays are read-only); None for anything else, whatever it is."""
    if len(raw) < _HEADER or not raw.startswith(_MAGIC + _VERSION):
        return None
    payload = raw[_HEADER:]
    if hashlib.sha256(payload).digest() != raw[_HEADER - 32 : _HEADER]:
        return None
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, KeyError, zipfile.BadZipFile):
        return None
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def default_store() -> DiskStore:
    return DiskStore(default_directory())


class LruCache(Generic[V]):
    """A thread-safe map bounded by the summed size of its values; the least recently used go first."""

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        self._max_bytes, self._size_of = max_bytes, size_of
        self._items: OrderedDict[Any, tuple[V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Any) -> V | None:
        with self._lock:
            found = self._items.get(key)
            if found is None:
                return None
            self._items.move_to_end(key)
            return found[0]

    def put(self, key: Any, value: V) -> None:
        """Insert or replace; sizes are measured again here, so call it again when a value has grown."""
        size = self._size_of(value)
        with self._lock:
            if old := self._items.pop(key, None):
                self._bytes -= old[1]
            self._items[key] = (value, size)
            self._bytes += size
            while self._bytes > self._max_bytes and len(self._items) > 1:
                _, (_, dropped) = self._items.popitem(last=False)
                self._bytes -= dropped

    def clear(self) -> None:
        with self._lock:
            self._items.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def nbytes(self) -> int:
        return self._bytes
