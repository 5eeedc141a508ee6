"""What each process of the test of `DeviceMesh` runs; a module of its own, since new processes import it by name."""

from __future__ import annotations

import os

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

import outlines_core as oc
from processors.generation import RandomSampling, Sampler
from tests.sampler_models import BOS, VOCABULARY, llama, rows_of

PROMPTS = [[BOS, 5, 9, 3, 3, 7], [BOS, 4], [BOS, 8, 6, 10, 11, 12, 13, 14, 3], [BOS, 3]]
GUIDES = [oc.compile_regex(p, VOCABULARY) for p in ("(ab|c)+d[01]", "x+", "(é|x|1)+0", "[ab]+c")]
CALL = {"max_new_tokens": 10, "sampling": RandomSampling(temperature=2), "rng": 3}


def sampler(**options):
    return Sampler(llama(), tokenizer=VOCABULARY, **options)


def run_rank(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    output = sampler().sample(PROMPTS, return_state=True, sharding=mesh, guide=GUIDES, **CALL)
    second = sampler().sample([[3], [4, 5], [6], [7]], max_new_tokens=6, last_state=output.state, sharding=mesh)
    errors = []
    refused = (
        (PROMPTS[:3], {}),
        (PROMPTS, {"stream": True}),
        (PROMPTS, {"guide": [GUIDES[0], GUIDES[1], oc.compile_regex("x", VOCABULARY), GUIDES[3]]}),
    )
    for prompts, call in refused:
        try:
            sampler(forbidden_tokens=["x"]).sample(prompts, sharding=mesh, max_new_tokens=5, **call)
        except ValueError as error:
            errors.append(str(error))
    results[rank] = output.text, rows_of(output), output.state.n_rows, second, errors
    distributed.destroy_process_group()
