"""``python -m processors generate``: continue prompts with text that satisfies a constraint."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

import outlines_core as oc
from processors.cli._batch import Method, Output, Progress, Runner
from processors.cli._constraints import (
    ChoiceOption,
    Constraint,
    GrammarOption,
    PropertyOrder,
    PropertyOrderOption,
    RegexOption,
    SchemaOption,
    WhitespaceOption,
    compiled,
    read_constraint,
)
from processors.cli._failures import fail
from processors.cli._journal import Journal, digest
from processors.cli._models import EMBEDDED, DeviceOption, ModelOption, SeedOption, load

__all__ = ["EXAMPLES", "generate", "read_prompts"]

EXAMPLES = """Examples:

\b
  python -m processors generate --prompt "Extract: Maria Lopez, 34, lives in Oslo" --schema person.json --greedy
  python -m processors generate --prompt "Today is " --regex "\\d{4}-(0[1-9]|1[0-2])-[0-3]\\d"
  python -m processors generate --prompt "Is it cold? " --choice yes --choice no --json
  python -m processors generate --prompt "A person: " --schema package.models:Person --stream
  python -m processors generate --prompt "The sum: " --grammar arithmetic
  python -m processors generate --prompt "A query: " --grammar query.lark --max-new-tokens 200
  python -m processors generate --batch prompts.jsonl --schema person.json --out answers.jsonl
  python -m processors generate --model path/to/model --prompt "Call " --regex "[0-9]{3}-[0-9]{4}" --beams 4

A batch that was killed goes on where it stopped when the same command is given again, if --out ends in .jsonl.
Without --model a small model is used that ships with the package: it runs anywhere, and turns short texts about
people, orders, tickets, events and sums into JSON, SQL or Python.
"""


def generate(
    regex: RegexOption = None,
    choice: ChoiceOption = None,
    schema: SchemaOption = None,
    grammar: GrammarOption = None,
    property_order: PropertyOrderOption = PropertyOrder.SCHEMA,
    whitespace: WhitespaceOption = "[ ]?",
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The text to continue.")] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Read prompts from FILE, one a line (blank lines are skipped), or objects with a "prompt" if its name '
            "ends in .jsonl; - is standard input.",
        ),
    ] = None,
    model: ModelOption = EMBEDDED,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most this many tokens; outputs are completed within them.")
    ] = 64,
    seed: SeedOption = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Sample at this temperature, above 0.  [default: 1.0]")
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token instead of sampling.")] = False,
    beams: Annotated[
        int, typer.Option(metavar="N", min=1, help="Beam search with N beams; beam sampling if --temperature is given.")
    ] = 1,
    stream: Annotated[bool, typer.Option("--stream", help="Write the text of --prompt as it comes.")] = False,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts that run together.")] = 8,
    device: DeviceOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Write results to FILE, not standard output. A FILE that ends in .jsonl gets JSON records, and a "
            "--batch that was interrupted goes on behind those that it holds.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin a batch anew, whatever the .jsonl file of --out holds.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object a line: prompt, text, tokens, finished, seed."),
    ] = False,
) -> None:
    """Continue one prompt, or many, with text that satisfies a regex, a JSON Schema or a grammar, or is a choice."""
    constraint = read_constraint(regex, choice, schema, grammar, property_order, whitespace)
    if constraint is None:
        raise typer.BadParameter("give one constraint: --regex, --schema, --grammar, or --choice once or more")
    if (prompt is None) == (batch is None):
        raise typer.BadParameter("give something to continue: either --prompt or --batch")
    if temperature is not None and (greedy or not 0 < temperature < float("inf")):
        raise typer.BadParameter("--temperature is a number above 0 and excludes --greedy")
    if stream and (prompt is None or beams > 1 or as_json or out is not None):
        raise typer.BadParameter("--stream shows one --prompt's text: not --batch, --beams, --json or --out")
    prompts = [prompt] if prompt is not None else read_prompts(str(batch))
    if temperature is None and not greedy and beams == 1:
        temperature = 1.0
    method = Method(beams, temperature)
    drawn = secrets.randbelow(2**31) if seed is None else seed

    def start(seed: int) -> Runner:
        return _runner(constraint, model, device, method, max_new_tokens, seed)

    if stream:
        _stream(start(drawn), prompts[0])
    elif batch is not None and out is not None and out.suffix == ".jsonl":
        job = digest([constraint.identity, model, beams, temperature, max_new_tokens])
        with Journal(out, job, prompts, overwrite=overwrite) as journal:
            if journal.seed is not None and seed not in (None, journal.seed):
                fail(f"{out} was begun with --seed {journal.seed}: name another file, or pass --overwrite", code=2)
            _resume(start, journal, prompts, drawn if journal.seed is None else journal.seed, batch_size)
            _tell(journal.n_unfinished, len(prompts), max_new_tokens)
    else:
        with _destination(out) as sink:
            unfinished = _write_all(
                start(drawn), prompts, batch_size, drawn, sink, as_json or (out is not None and out.suffix == ".jsonl")
            )
        _tell(unfinished, len(prompts), max_new_tokens)


def _runner(
    constraint: Constraint, model_name: str, device: str | None, method: Method, max_new_tokens: int, seed: int
) -> Runner:
    model, tokenizer = load(model_name, device)
    from processors.tokenizers import vocabulary_from

    try:
        vocabulary = vocabulary_from(tokenizer, eos_token_ids=model.generation_config.eos_token_id)
    except oc.OutlinesCoreError as error:
        fail(str(error))
    return Runner(model, tokenizer, compiled(constraint, vocabulary), method, max_new_tokens, seed)


def _stream(runner: Runner, prompt: str) -> None:
    try:
        for piece in runner.stream(prompt):
            typer.echo(piece.encode("utf-8", "surrogatepass"), nl=False)
            sys.stdout.flush()
    except _failures() as error:
        fail(str(error))
    typer.echo()


def _resume(start: Any, journal: Journal, prompts: Sequence[str], seed: int, batch_size: int) -> None:
    """Write the records that are missing, in the batches in which an undisturbed job writes them."""
    if journal.n_done == len(prompts):
        typer.echo(f"nothing to do: all {len(prompts)} prompts are answered", err=True)
        return
    if journal.n_done:
        typer.echo(f"going on behind {journal.n_done} of {len(prompts)} answers", err=True)
    runner = start(seed)
    n_before = journal.n_done
    with Progress(len(prompts), n_before) as progress:
        for at, outputs in _in_batches(runner, prompts, batch_size, n_before // batch_size * batch_size, progress):
            for i, output in enumerate(outputs, at):
                if i >= n_before:
                    journal.write(_record(prompts[i], output, seed))
            journal.sync()


def _write_all(
    runner: Runner, prompts: Sequence[str], batch_size: int, seed: int, sink: IO[bytes] | None, as_json: bool
) -> int:
    """Write one line a prompt; how many texts were cut."""
    unfinished = 0
    with Progress(len(prompts)) as progress:
        for at, outputs in _in_batches(runner, prompts, batch_size, 0, progress):
            for i, output in enumerate(outputs, at):
                unfinished += not output.finished
                record = _record(prompts[i], output, seed)
                line = json.dumps(record, ensure_ascii=False) if as_json else output.text
                typer.echo(line.encode("utf-8", "surrogatepass") + b"\n", file=sink, nl=False)
            if sink is not None:
                sink.flush()
    return unfinished


def _in_batches(
    runner: Runner, prompts: Sequence[str], batch_size: int, first: int, progress: Progress
) -> Iterator[tuple[int, list[Output]]]:
    for at in range(first, len(prompts), batch_size):
        try:
            outputs = runner.run(prompts[at : at + batch_size], at, progress)
        except _failures() as error:
            fail(str(error))
        yield at, outputs


def _failures() -> tuple[type[Exception], ...]:
    """What generation may meet: a prompt that does not fit, a limit, memory."""
    import torch

    return (oc.OutlinesCoreError, ValueError, torch.OutOfMemoryError)


def _record(prompt: str, output: Output, seed: int) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": output.text,
        "tokens": output.n_tokens,
        "finished": output.finished,
        "seed": seed,
    }


def _tell(unfinished: int, total: int, max_new_tokens: int) -> None:
    if unfinished:
        fail(f"{unfinished} of {total} outputs were cut at {max_new_tokens} tokens before they were complete")


def read_prompts(source: str) -> list[str]:
    """The prompts in a file of lines or of JSON objects, or on standard input (``-``)."""
    name = "standard input" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {name}: {error}", param_hint="--batch") from None
    prompts = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if source.endswith(".jsonl"):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise typer.BadParameter(f"{name}, line {number}: not JSON: {error}", param_hint="--batch") from None
            if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
                raise typer.BadParameter(
                    f'{name}, line {number}: expected an object with a text under "prompt"', param_hint="--batch"
                )
            prompts.append(record["prompt"])
        else:
            prompts.append(line.removesuffix("\r"))
    if not prompts:
        raise typer.BadParameter(f"{name} holds no prompt", param_hint="--batch")
    return prompts


@contextmanager
def _destination(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("wb")
    except OSError as error:
        fail(f"cannot write to {path}: {error.strerror}")
    with file:
        yield file
