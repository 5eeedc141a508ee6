"""Which row of this call continues which row of an earlier call: the memory of a logits processor.

A decoding loop shows a processor nothing but the ids of each row. Rows swap places (beams), are doubled, shrink again
when drafts are rejected (assisted generation), or belong to another call altogether. So a row is recognized by what it
says: it continues the row of its block that equals its ids but for the last one. If any row of a call continues
nothing, a new call has begun and every row is a prompt.

Earlier calls are kept as *tracks*: the ids of their rows, and for each row a chain of states, newest first, so that
every prefix of a track is remembered with it. A call that continues the newest track row by row (the usual case)
extends it by one column; any other makes a new track, and old ones are dropped.

Nothing is hashed on the host. On the CPU a kernel compares rows from their ends, where different rows differ first.
On other devices sums of the ids with random weights find the candidate, the ids themselves confirm it there, and only
the new ids and the answers are copied to the host, once.
"""

from __future__ import annotations

import importlib
import weakref
from collections import deque
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["RowTracker", "Step"]

_MAX_TRACKS = 64
_MAX_TRACK_BYTES = 16 * 2**20
"""Older tracks than the newest two are dropped beyond these."""
_CHAIN_CUT = 512
"""Chains are cut behind twice this many states, every so many: no draft is that long."""


class Step(NamedTuple):
    """What one call of a processor means.

    Attributes:
        is_start: the rows are prompts: a new call has begun.
        tokens: the last id of each row; empty at a start.
        states: the state of each row before that id, as committed; empty at a start.
        n_generated: ids since the start, the last ones included.
        flags: the flags given to `match`, on the host.
    """

    is_start: bool
    tokens: list[int]
    states: list[Any]
    n_generated: int
    flags: list[bool]


class _Link:
    """A state and the chain of states before it."""

    __slots__ = ("before", "state")

    def __init__(self, state: Any, before: _Link | None) -> None:
        self.state, self.before = state, before


class _Track:
    """Rows of one length with room to grow: ids[:, :length] and the newest link of each row."""

    __slots__ = ("ids", "length", "links")

    def __init__(self, ids: Any, length: int, links: list[_Link]) -> None:
        self.ids, self.length, self.links = ids, length, links

    def link(self, row: int, length: int) -> _Link | None:
        """The link of the first `length` ids of a row, None if it is no longer known."""
        link: _Link | None = self.links[row]
        for _ in range(self.length - length):
            if link is None:
                break
            link = link.before
        return link

    @property
    def nbytes(self) -> int:
        return int(self.ids.shape[0] * self.ids.shape[1] * 8)


class RowTracker:
    """Match rows to earlier rows, one call of `match` and one of `commit` a step.

    `match` changes nothing: if no `commit` follows, the step did not happen.
    """

    def __init__(self, *, on_device: bool = False) -> None:
        """Rows on the CPU are compared by torch operations, as on other devices, if `on_device`."""
        self._on_device = on_device
        self._weights = torch.empty(0, dtype=torch.int64)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next call is a start."""
        self._tracks: deque[_Track] = deque()
        self._start = 0
        self._call: weakref.ref[object] | None = None
        self._next_call: weakref.ref[object] | None = None
        self._pending: tuple[Any, list[_Link], bool] | None = None

    @property
    def call(self) -> object | None:
        """What stands for the decoding call of the last start, while it lives."""
        return None if self._call is None else self._call()

    def match(
        self, ids: torch.Tensor, n_blocks: int, flags: torch.Tensor | None = None, call: object | None = None
    ) -> Step:
        """Recognize the rows of a call.

        Args:
            ids: (n_rows, n) int64.
            n_blocks: rows continue rows of their own block only; n_rows is a multiple of it.
            flags: (n_rows,) booleans on the device of `ids` to bring along in the same copy.
            call: what stands for the decoding call that these rows belong to, None if it is not known; rows of
                another call than that of the last start are prompts.
        """
        n_rows, n = ids.shape
        on_host = not self._on_device and ids.device.type == "cpu"
        if on_host and flags is None and n > self._start and (call is None or call is self.call):
            step = self._next_column(ids)
            if step is not None:
                return step
        found = [t for t in reversed(self._tracks) if t.length >= n - 1 and len(t.links) % n_blocks == 0]
        if n <= self._start or (call is not None and call is not self.call):
            found = []
        rows: Any = ids.detach()
        if not on_host:
            sources, tokens, flags_here = self._match_on_device(rows, found, n_blocks, flags)
        else:
            rows = np.ascontiguousarray(rows.numpy())
            flags_here = [] if flags is None else flags.tolist()
            sources, tokens = _match_on_host(rows, found, n_blocks), rows[:, -1].tolist() if n else []
        links = [track.link(row, n - 1) for track, row in sources]
        if not links or any(link is None for link in links):
            self._pending = rows, [], False
            self._next_call = None if call is None else weakref.ref(call)
            return Step(True, [], [], 0, flags_here)
        known = [link for link in links if link is not None]
        newest = self._tracks[-1]
        in_place = newest.length == n - 1 and len(newest.links) == n_rows
        in_place = in_place and all(track is newest and row == r for r, (track, row) in enumerate(sources))
        self._pending = rows, known, in_place
        return Step(False, tokens, [link.state for link in known], n - self._start, flags_here)

    def _next_column(self, ids: torch.Tensor) -> Step | None:
        """`match` where each row continues the row of its number in the newest track: nearly always."""
        if not self._tracks:
            return None
        (n_rows, n), newest = ids.shape, self._tracks[-1]
        if newest.length != n - 1 or len(newest.links) != n_rows:
            return None
        rows = np.ascontiguousarray(ids.detach().numpy())
        if not _kernels().rows_continue(rows, n - 1, newest.ids):
            return None
        self._pending = rows, newest.links, True
        return Step(False, rows[:, -1].tolist(), [link.state for link in newest.links], n - self._start, [])

    def commit(self, states: list[Any]) -> None:
        """Remember the rows of the last `match` with their states."""
        if self._pending is None:
            raise RuntimeError("commit without match")
        (ids, before, in_place), self._pending = self._pending, None
        n = ids.shape[1]
        if not before:
            call = self._next_call
            self.reset()
            self._start, self._call = n, call
            self._tracks.append(_Track(_with_room(ids), n, [_Link(state, None) for state in states]))
            return
        links = [_Link(state, link) for state, link in zip(states, before, strict=True)]
        if in_place:
            track = self._tracks[-1]
            if n > track.ids.shape[1]:
                track.ids = _with_room(track.ids)
            track.ids[:, n - 1] = ids[:, -1]
            track.length, track.links = n, links
        else:
            self._tracks.append(_Track(_with_room(ids), n, links))
            self._drop_old_tracks()
        if (n - self._start) % _CHAIN_CUT == 0:
            _cut_chains(links)

    def _drop_old_tracks(self) -> None:
        tracks = self._tracks
        total = sum(track.nbytes for track in tracks)
        while len(tracks) > 2 and (len(tracks) > _MAX_TRACKS or total > _MAX_TRACK_BYTES):
            total -= tracks.popleft().nbytes

    # -- on other devices -------------------------------------------------------------------------------------------

    def _match_on_device(
        self, ids: torch.Tensor, found: list[_Track], n_blocks: int, flags: torch.Tensor | None
    ) -> tuple[list[tuple[_Track, int]], list[int], list[bool]]:
        n_rows, n = ids.shape
        on_host: list[bool] = []
        if not found:
            return [], [], [] if flags is None else flags.tolist()
        sources: list[tuple[_Track, int] | None] = [None] * n_rows
        tokens: list[int] = []
        for k, track in enumerate(found):
            columns = [*self._candidates(ids[:, : n - 1], track, n_blocks)]
            if k == 0:  # one copy is all there is in the usual case
                columns += [ids[:, -1]] if flags is None else [ids[:, -1], flags.to(torch.int64)]
            answer = torch.stack(columns).tolist()
            if k == 0:
                tokens, on_host = answer[3], [bool(flag) for flag in answer[4]] if flags is not None else []
            for r in range(n_rows):
                if sources[r] is None and answer[1][r]:
                    sources[r] = track, answer[0][r]
            if any(s is None and answer[2][r] for r, s in enumerate(sources)):  # equal sums, other ids: ask exactly
                rows = _rows_on_host(ids, track, n_blocks)
                sources = [s if s or row < 0 else (track, row) for s, row in zip(sources, rows, strict=True)]
            if all(s is not None for s in sources):
                break
        complete = [s for s in sources if s is not None]
        return (complete if len(complete) == n_rows else []), tokens, on_host

    def _candidates(
        self, ids: torch.Tensor, track: _Track, n_blocks: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each row: a row of `track` with an equal sum, whether their ids are equal, whether there was one."""
        n_rows, length = ids.shape
        known: torch.Tensor = track.ids[:, :length]
        weights = self._weights_for(length, ids.device)
        sums, known_sums = (ids * weights).sum(1), (known * weights).sum(1)
        rows, known_rows = torch.arange(n_rows, device=ids.device), torch.arange(known.shape[0], device=ids.device)
        block = rows // (n_rows // n_blocks)
        known_block = known_rows // (known.shape[0] // n_blocks)
        hits = (sums[:, None] == known_sums[None, :]) & (block[:, None] == known_block[None, :])
        ranked = hits.to(torch.int8) * (1 + (rows[:, None] == known_rows[None, :]).to(torch.int8))
        best, source = ranked.max(dim=1)
        equal = (ids == known[source]).all(dim=1) & (best > 0)
        return source, equal.to(torch.int64), best.to(torch.int64)

    def _weights_for(self, length: int, device: torch.device) -> torch.Tensor:
        if self._weights.shape[0] < length or self._weights.device != device:
            generator = np.random.default_rng(20_240_229)
            drawn = generator.integers(-(2**63), 2**63 - 1, size=max(1024, 2 * length), dtype=np.int64, endpoint=True)
            self._weights = torch.from_numpy(drawn | 1).to(device)
        return self._weights[:length]


@cache
def _kernels() -> ModuleType:
    """Imported when they are needed: numba takes a while."""
    return importlib.import_module("outlines_core.kernels.masking")


def _match_on_host(ids: NDArray[np.int64], found: list[_Track], n_blocks: int) -> list[tuple[_Track, int]]:
    """For each row the (track, row) that it continues; [] if some row continues none."""
    if not found:
        return []
    match_rows = _kernels().match_rows
    n_rows, n = ids.shape
    row_of = np.full(n_rows, -1, dtype=np.int64)
    if match_rows(ids, n - 1, found[0].ids, n_blocks, row_of) == 0:
        return [(found[0], r) for r in row_of.tolist()]
    track_of = np.where(row_of >= 0, 0, -1)
    for k, track in enumerate(found[1:], 1):
        left = match_rows(ids, n - 1, track.ids, n_blocks, row_of)
        track_of[(row_of >= 0) & (track_of < 0)] = k
        if left == 0:
            return [(found[t], r) for t, r in zip(track_of.tolist(), row_of.tolist(), strict=True)]
    return []


def _rows_on_host(ids: torch.Tensor, track: _Track, n_blocks: int) -> list[int]:
    """For each row the row of `track` that it continues, or -1: copies both over and compares them."""
    match_rows = _kernels().match_rows
    rows = np.full(ids.shape[0], -1, dtype=np.int64)
    here, there = (np.ascontiguousarray(x.cpu().numpy()) for x in (ids, track.ids))
    match_rows(here, ids.shape[1] - 1, there, n_blocks, rows)
    found: list[int] = rows.tolist()
    return found


def _with_room(ids: Any) -> Any:
    """A copy with columns to grow into."""
    n_rows, n = ids.shape
    room = n + max(64, n // 2)
    grown = (
        np.empty((n_rows, room), dtype=np.int64)
        if isinstance(ids, np.ndarray)
        else torch.empty((n_rows, room), dtype=torch.int64, device=ids.device)
    )
    grown[:, :n] = ids
    return grown


def _cut_chains(links: list[_Link]) -> None:
    for newest in links:
        link: _Link | None = newest
        for _ in range(2 * _CHAIN_CUT):
            if link is None:
                break
            link = link.before
        if link is not None:
            link.before = None
