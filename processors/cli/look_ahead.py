"""``python -m processors bytes TEXT``: what comes next, byte by byte, as bars."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Annotated

import typer

import outlines_core as oc
from processors.cli._failures import fail
from processors.cli._models import EMBEDDED, DeviceOption, ModelOption, SeedOption, load

if TYPE_CHECKING:
    from processors.bytes import ByteBeamState, LazyByteProbs

__all__ = ["EXAMPLES", "look_ahead"]

_WIDTH = 40
EXAMPLES = """Examples:

\b
  python -m processors bytes "An apple a day keeps the "
  python -m processors bytes "The year is 19" --regex "[0-9]{2}" --write 2 --seed 1
  python -m processors bytes "Caf" --beam 16 --top 5 --json
"""


def look_ahead(
    text: Annotated[str, typer.Argument(help="The text to continue.")],
    model: ModelOption = EMBEDDED,
    beam: Annotated[
        int, typer.Option(metavar="K", min=1, help="Ways to cut the text into tokens that are followed.")
    ] = 8,
    top: Annotated[int, typer.Option(metavar="N", min=1, max=257, help="Show the N likeliest.")] = 10,
    regex: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="What comes next matches this Python regex as a whole.")
    ] = None,
    write: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also sample up to N bytes (until the text ends).")
    ] = 0,
    seed: SeedOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: text, logZ, next, written.")] = False,
) -> None:
    """Show which bytes a model expects after a text, whatever tokens they belong to."""
    network, tokenizer = load(model, device)
    from processors.bytes import BeamParams, ByteBeamState
    from processors.inference import byte_vocabulary
    from processors.lm import CachedCausalLM

    async def look() -> tuple[ByteBeamState, LazyByteProbs, bytes]:
        lm = CachedCausalLM.from_pretrained(network, tokenizer, eos_token_ids=network.generation_config.eos_token_id)
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else lm.eos_token_ids[0]
        guide = None if regex is None else oc.compile_regex(regex, byte_vocabulary())
        state = await ByteBeamState.initial(lm, BeamParams(K=beam), guide=guide, initial_context=[first])
        state = await state.prefill(text.encode("utf-8", "surrogateescape"))
        return state, await state.logp_next(), await state.sample(b"", write, seed=seed)

    try:
        state, following, written = asyncio.run(look())
    except oc.ConstraintError as error:
        fail(str(error), code=2)
    except oc.OutlinesCoreError as error:
        fail(str(error))
    found = [("end of text" if key == 257 else _shown(int(key or 0)), math.exp(p)) for key, p in following.top(top)]
    if as_json:
        record = {"text": text, "logZ": state.logZ, "next": dict(found)}
        record |= {"written": written.decode("utf-8", "backslashreplace")} if write else {}
        typer.echo(json.dumps(record, ensure_ascii=False))
        return
    if state.n_bytes:
        bits = -state.logZ / math.log(2) / state.n_bytes
        typer.echo(f"{state.n_bytes} bytes, log-probability {state.logZ:.2f}, {bits:.2f} bits per byte; next:")
    most = max(p for _, p in found)
    for name, p in found:
        typer.echo(f"{name:>11}  {p:.4f}  {'█' * round(_WIDTH * p / most)}".rstrip())
    if write:
        typer.echo(written.decode("utf-8", "backslashreplace"))


def _shown(byte: int) -> str:
    character = chr(byte)
    if 32 < byte < 127:
        return character
    return {" ": "space", "\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\x{byte:02x}")
