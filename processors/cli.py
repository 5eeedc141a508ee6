"""The command line: ``python -m processors generate``, and ``bytes`` (`processors._bytes_command`).

Exit codes: 0, every output satisfies the constraint; 1, something failed while running, or an output was cut short;
2, the command itself is wrong: an option, an input file, or a pattern that cannot be compiled (shown with its place).
Results go to standard output, everything else to standard error; progress is drawn only on a terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import operator
import re
import secrets
import sys
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import outlines_core as oc
from processors import _bytes_command, grammars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["app", "main"]

EXAMPLES = """Examples:

\b
  python -m processors generate --prompt "Today is " --regex "\\d{4}-(0[1-9]|1[0-2])-[0-3]\\d"
  python -m processors generate --prompt "Is it cold? " --choice yes --choice no --json
  python -m processors generate --prompt "A person: " --schema person.json --max-new-tokens 200
  python -m processors generate --prompt "A person: " --schema package.models:Person
  python -m processors generate --prompt "The sum: " --grammar arithmetic
  python -m processors generate --prompt "A query: " --grammar query.lark --max-new-tokens 200
  python -m processors generate --batch prompts.txt --regex "[a-z]+( [a-z]+)*[.]" --out answers.txt
  python -m processors generate --model path/to/model --prompt "Call " --regex "[0-9]{3}-[0-9]{4}" --greedy

Without --model a tiny model that ships with the package is used: it runs anywhere and writes nonsense, but nonsense
that satisfies the constraint.
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts hold patterns such as [a-z], which are not markup
)


class PropertyOrder(StrEnum):
    """The values of ``--property-order``."""

    SCHEMA = "schema"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Output:
    """One generated text."""

    prompt: str
    text: str
    n_tokens: int
    finished: bool
    """Whether the text satisfies the constraint, rather than being cut at the token limit."""


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Generate text that satisfies a constraint, exactly."""
    if version:
        typer.echo(f"outlines-processors {oc.__version__}")
        raise typer.Exit


@app.command(epilog=EXAMPLES)
def generate(
    regex: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Each output matches this Python regex as a whole.")
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Each output is one of these texts; give it repeatedly.")
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA",
            help="Each output is JSON that is valid under this JSON Schema: a file, the schema's text itself, or "
            "MODULE:NAME for a pydantic model, dataclass, TypedDict, Enum or function that Python can import.",
        ),
    ] = None,
    grammar: Annotated[
        str | None,
        typer.Option(
            metavar="GRAMMAR",
            help=f"Each output is a text of this Lark grammar: one that ships ({', '.join(grammars.list())}), a file, "
            "or the grammar's text itself, with a rule `start`.",
        ),
    ] = None,
    property_order: Annotated[
        PropertyOrder,
        typer.Option(
            metavar="schema|any", help="With --schema: keys in the schema's order, or in any.", case_sensitive=False
        ),
    ] = PropertyOrder.SCHEMA,
    whitespace: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="With --schema, what may stand between JSON tokens: a regex, compact (nothing) or flexible (all that "
            "JSON allows, line breaks too).",
        ),
    ] = "[ ]?",
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The text to continue.")] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Read prompts from FILE, one a line (blank lines are skipped), or objects with a "prompt" if its name '
            "ends in .jsonl; - is standard input.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Directory of a Hugging Face causal model, or its name on the hub."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most this many tokens; outputs are completed within them.")
    ] = 64,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=2**32 - 1, help="Same seed, same outputs; without it they vary."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Sample at this temperature, above 0.  [default: 1.0]")
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token instead of sampling.")] = False,
    beams: Annotated[
        int, typer.Option(metavar="N", min=1, help="Beam search with N beams; beam sampling if --temperature is given.")
    ] = 1,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts that run together.")] = 8,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, ...  [default: cuda if there is one]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write results to FILE, not standard output.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object a line: prompt, text, tokens, finished, seed."),
    ] = False,
) -> None:
    """Continue one prompt, or many, with text that satisfies a regex, a JSON Schema or a grammar, or is a choice."""
    if (regex is not None) + bool(choice) + (schema is not None) + (grammar is not None) != 1:
        raise typer.BadParameter("give one constraint: --regex, --schema, --grammar, or --choice once or more")
    if (prompt is None) == (batch is None):
        raise typer.BadParameter("give something to continue: either --prompt or --batch")
    if temperature is not None and (greedy or not 0 < temperature < float("inf")):
        raise typer.BadParameter("--temperature is a number above 0 and excludes --greedy")
    prompts = [prompt] if prompt is not None else read_prompts(str(batch))
    seed = secrets.randbelow(2**31) if seed is None else seed
    if greedy or (beams > 1 and temperature is None):
        method: dict[str, Any] = {"do_sample": False, "num_beams": beams}
    else:
        method = {"do_sample": True, "num_beams": beams, "temperature": 1.0 if temperature is None else temperature}

    compile_: Callable[[oc.Vocabulary], oc.TokenAutomaton]
    if schema is not None:
        compile_ = partial(
            oc.compile_json_schema,
            read_schema(schema),
            property_order=property_order.value,
            whitespace=whitespace,
        )
    elif grammar is not None:
        text, options = read_grammar(grammar)
        compile_ = partial(oc.compile_grammar, text, **options)
    elif regex is not None:
        compile_ = partial(oc.compile_regex, regex)
    else:
        compile_ = partial(oc.compile_choice, choice or [])

    with _destination(out) as sink:
        unfinished = 0
        for output in _outputs(compile_, prompts, model, max_new_tokens, seed, method, batch_size, device):
            unfinished += not output.finished
            if as_json:
                record = {
                    "prompt": output.prompt,
                    "text": output.text,
                    "tokens": output.n_tokens,
                    "finished": output.finished,
                    "seed": seed,
                }
                line = json.dumps(record, ensure_ascii=False)
            else:
                line = output.text
            typer.echo(line.encode("utf-8", "surrogatepass") + b"\n", file=sink, nl=False)
            if sink is not None:
                sink.flush()
    if unfinished:
        _fail(f"{unfinished} of {len(prompts)} outputs were cut at {max_new_tokens} tokens before they were complete")


def read_schema(source: str) -> Any:
    """What `compile_json_schema` takes, from a file, a JSON text, or a name in a module."""
    hint = "--schema"
    if source.lstrip().startswith("{") or source.strip() in ("true", "false"):
        return source
    path = Path(source).expanduser()
    named = re.fullmatch(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)", source)
    if named is None or path.is_file():
        try:
            return path.read_bytes()
        except OSError as error:
            raise typer.BadParameter(
                f"{source} is neither JSON text nor MODULE:NAME, and as a file it cannot be read: {error.strerror}",
                param_hint=hint,
            ) from None
    module, name = named.groups()
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{source}: there is no module {error.name}", param_hint=hint) from None
    except AttributeError:
        raise typer.BadParameter(f"{source}: the module {module} has no {name}", param_hint=hint) from None


def read_grammar(source: str) -> tuple[str, dict[str, Any]]:
    """A Lark grammar and how it is loaded, from the name of a shipped one, a file, or the grammar's text."""
    if source in grammars.list():
        return grammars.load(source), grammars.options(source)
    if ":" in source and ("\n" in source or not Path(source).expanduser().is_file()):
        return source, {}
    try:
        return Path(source).expanduser().read_text(encoding="utf-8"), {}
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(
            f"{source} is no grammar that ships ({', '.join(grammars.list())}), no grammar's text, and as a file it "
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            param_hint="--grammar",
        ) from None


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


@contextlib.contextmanager
def _destination(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("wb")
    except OSError as error:
        _fail(f"cannot write to {path}: {error.strerror}")
    with file:
        yield file


def _outputs(
    compile_: Callable[[oc.Vocabulary], oc.TokenAutomaton],
    prompts: Sequence[str],
    model_name: str | None,
    max_new_tokens: int,
    seed: int,
    method: dict[str, Any],
    batch_size: int,
    device: str | None,
) -> Iterator[Output]:
    """Load, compile and generate, batch by batch."""
    model, tokenizer = _load(model_name, device)
    import torch
    from transformers import set_seed

    from processors.logits import GuideLogitsProcessor
    from processors.tokenizers import vocabulary_from

    eos = model.generation_config.eos_token_id
    try:
        vocabulary = vocabulary_from(tokenizer, eos_token_ids=eos)
        automaton = compile_(vocabulary)
        least = automaton.min_tokens_to_accept(automaton.initial_state)
    except oc.ConstraintError as error:
        _fail(str(error), code=2)
    except oc.OutlinesCoreError as error:
        _fail(str(error))
    except ValueError as error:  # whitespace that matches other characters
        _fail(str(error), code=2)
    if least > max_new_tokens:
        _fail(
            f"the shortest text that satisfies the constraint takes {least} tokens of this model: "
            f"--max-new-tokens {max_new_tokens} is too few",
            code=2,
        )

    eos_ids = list(vocabulary.eos_token_ids)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_ids[0]
    set_seed(seed)
    with _Progress(-(-len(prompts) // batch_size) * max_new_tokens) as progress:
        for at in range(0, len(prompts), batch_size):
            part = prompts[at : at + batch_size]
            rows = [tokenizer(text)["input_ids"] or [_first_token(tokenizer, eos_ids)] for text in part]
            width = max(map(len, rows))
            input_ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
            attention_mask = torch.tensor(
                [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device
            )
            try:
                generated = model.generate(
                    input_ids,
                    attention_mask=attention_mask,
                    logits_processor=[
                        progress,
                        GuideLogitsProcessor(vocabulary, automaton, max_new_tokens=max_new_tokens),
                    ],
                    max_new_tokens=max_new_tokens,
                    eos_token_id=eos_ids,
                    pad_token_id=pad,
                    **method,
                )
            except (oc.OutlinesCoreError, torch.OutOfMemoryError) as error:
                _fail(str(error))
            progress.reach((at // batch_size + 1) * max_new_tokens)
            for text, row in zip(part, generated[:, width:].tolist(), strict=True):
                ids = row[: next((i for i, token in enumerate(row) if token in eos_ids), len(row))]
                state = automaton.accept_tokens(automaton.initial_state, ids)[1]
                raw = b"".join(map(vocabulary.token_bytes, ids))
                yield Output(text, raw.decode("utf-8", "replace"), len(ids), automaton.is_accepting(state))


def _load(name: str | None, device: str | None) -> tuple[Any, Any]:
    from processors.embedded import load_embedded

    try:
        import torch

        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # a CPU build of torch asserts that CUDA is there
            _fail(f"--device {device}: {_first_line(error)}", code=2)
        if name is None:
            return load_embedded(device)

        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        _fail(
            f"generation needs torch and transformers, and {error.name} could not be imported: "
            "pip install 'outlines-processors[hf]'"
        )
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    directory = Path(name).expanduser()
    if is_path and not directory.is_dir():
        _fail(f"--model {name}: there is no such directory", code=2)
    where = str(directory) if directory.is_dir() else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
        model: Any = AutoModelForCausalLM.from_pretrained(where)
    except (ImportError, OSError, ValueError) as error:  # ImportError: a tokenizer that needs another library
        _fail(f"cannot load the model {name}: {_first_line(error)}")
    return model.to(device).eval(), tokenizer


def _first_token(tokenizer: Any, eos_ids: Sequence[int]) -> int:
    """What an empty prompt starts from."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos_ids[0]


class _Progress:
    """A bar of decoding steps on a terminal, nothing elsewhere.  Passed to `generate` as a logits processor."""

    def __init__(self, steps: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=steps, desc="generating", unit="step", leave=False, disable=None)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, _input_ids: Any, scores: Any) -> Any:
        self._bar.update()
        return scores

    def reach(self, step: int) -> None:
        """Texts may end before the limit: jump to where the next batch starts."""
        self._bar.update(step - self._bar.n)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


_bytes_command.add_to(app, _load, _fail)


def main() -> None:
    """What ``python -m processors`` runs."""
    app(prog_name="python -m processors")
