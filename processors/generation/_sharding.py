"""A call whose batch is split into equal parts: over a list of devices, or over the processes of a `DeviceMesh`.

A row's text depends on no other row, so the parts together are what one device would have given.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

from outlines_core.errors import OutlinesCoreError
from processors.generation._call import Call, Request
from processors.generation._loop import Row
from processors.generation._outputs import Running
from processors.generation.state import SamplingState

if TYPE_CHECKING:
    from processors.generation.sampler import Sampler

__all__ = ["split"]


def split(sampler: Sampler, request: Request, sharding: Any, *, stream: bool) -> Running:
    """The call, in parts if `sharding` says so.

    Raises:
        ValueError: a batch that cannot be split equally; a mesh of several dimensions; a stream over a mesh; a state
            that was split otherwise.
    """
    if sharding is None:
        return sampler.prepare(request)
    if isinstance(sharding, DeviceMesh):
        if sharding.ndim != 1:
            raise ValueError(f"the mesh has {sharding.ndim} dimensions: give the one that splits the batch")
        if stream:
            raise ValueError("processes of a mesh end their rows at different times: a stream cannot be split over it")
        n, k = sharding.size(), sharding.get_local_rank()
        return _Gathered(sampler.prepare(_part(request, k, n, request.state)), sharding)
    devices = [torch.device(device) for device in sharding]
    states: Sequence[SamplingState | None] = [None] * len(devices)
    if request.state is not None:
        states = request.state.parts
        if len(states) != len(devices):
            raise ValueError(f"last_state was split into {len(states) or 1} parts, not {len(devices)}")
    parts = [_part(request, k, len(devices), state) for k, state in enumerate(states)]
    models = [_on_device(sampler, device) for device in devices]
    return _Parts([sampler.prepare(part, *model) for part, model in zip(parts, models, strict=True)])


def _part(request: Request, k: int, n: int, state: SamplingState | None) -> Request:
    """Part k of n."""
    n_rows = len(request.prompts)
    if n == 0 or n_rows % n:
        raise ValueError(f"{n_rows} prompts cannot be split equally over {n} devices")
    if request.images is not None and len(request.images) != n_rows:
        raise ValueError(f"{len(request.images)} lists of images for {n_rows} prompts: as many are needed")
    rows = slice(k * n_rows // n, (k + 1) * n_rows // n)
    return replace(
        request,
        prompts=request.prompts[rows],
        images=None if request.images is None else request.images[rows],
        guides=request.guides[rows],
        seeds=None if request.seeds is None else request.seeds[rows],
        state=state,
    )


def _on_device(sampler: Sampler, device: torch.device) -> tuple[Any, Any]:
    """The model and the weights there; copied once, and again after they have changed."""
    own: torch.device = sampler.model.device
    if device.type == own.type and (device.index or 0) == (own.index or 0):
        return sampler.model, sampler.params
    given = dict(sampler.model.named_parameters()) if sampler.params is None else dict(sampler.params)
    version = tuple((x.data_ptr(), x._version) for x in given.values())
    known = sampler._copies.get(device)
    if known is None or known[0] != version:
        params = None if sampler.params is None else {name: x.to(device) for name, x in given.items()}
        known = sampler._copies[device] = version, copy.deepcopy(sampler.model).to(device), params
    return known[1], known[2]


class _Parts:
    """Calls side by side, pass by pass; in threads if each has a model of its own."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls

    @property
    def rows(self) -> Sequence[Row]:
        return [row for call in self._calls for row in call.rows]

    def steps(self) -> Iterator[None]:
        running = [call.steps() for call in self._calls]
        apart = len({id(call.model) for call in self._calls}) == len(self._calls)
        with ThreadPoolExecutor(len(running) if apart else 1, thread_name_prefix="sampler") as pool:
            while True:
                on = list(pool.map(lambda steps: next(steps, self), running))  # self: this one is over
                if all(one is self for one in on):
                    return
                yield

    def new_tokens(self) -> list[list[int]]:
        return [new for call in self._calls for new in call.new_tokens()]

    def pieces(self, new: Sequence[Sequence[int]]) -> list[str]:
        texts: list[str] = []
        for call in self._calls:
            texts += call.pieces(new[len(texts) : len(texts) + len(call.rows)])
        return texts

    def state(self) -> SamplingState:
        parts = tuple(call.state() for call in self._calls)
        return SamplingState(
            None,
            sum((part.pending for part in parts), ()),
            sum((part.seeds for part in parts), ()),
            sum((part.n_drawn for part in parts), ()),
            parts,
        )


class _Gathered:
    """The call of this process, and after its last pass the rows of all processes."""

    def __init__(self, call: Call, mesh: DeviceMesh) -> None:
        self._call, self._mesh = call, mesh
        self.rows: Sequence[Row] = call.rows

    def steps(self) -> Iterator[None]:
        mine: list[Row] | Exception
        try:
            for _ in self._call.steps():
                pass
            mine = self._call.rows
        except (OutlinesCoreError, ValueError, RuntimeError) as error:  # the others wait: let them know
            mine = error
        everyone: list[Any] = [None] * self._mesh.size()
        distributed.all_gather_object(everyone, mine, group=self._mesh.get_group())
        for theirs in everyone:
            if isinstance(theirs, Exception):
                raise theirs
        self.rows = [row for theirs in everyone for row in theirs]
        yield

    def new_tokens(self) -> list[list[int]]:
        return [row.tokens for row in self.rows]

    def pieces(self, new: Sequence[Sequence[int]]) -> list[str]:  # noqa: ARG002
        raise ValueError("a stream cannot be split over a mesh")

    def state(self) -> SamplingState:
        return self._call.state()
