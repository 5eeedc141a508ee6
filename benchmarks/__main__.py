"""All benchmarks in one run, and the report of it.

    python benchmarks --tokenizer DIR --data FILE --peer PYTHON [...] [--only NAME ...] [--every K] [--quick] [--cold]

Each part is a benchmark of this directory, run as the command that stands in its record, one after the other. A record
(`record/NAME.json`: command, date, machine and versions, load, what the benchmark found, samples as quantiles) replaces
that of an earlier run; `record/README.md` and the pictures are made from all records that are there, so `--only` brings
parts up to date, and `--only` without a name makes the report again. What fails, is missing or has no peer is said in
the report, and the run ends with status 1.

Peers live in environments of their own: for each part the first Python of `--peer` that has one of its peers is taken.
DIR is a Hugging Face tokenizer, FILE has schemas in MaskBench's form. A full run takes hours; nothing else should run
on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import plots
from json_schema import has_module
from report import markdown, size_of
from summaries import summary

HERE = pathlib.Path(__file__).resolve().parent
MOST_BYTES = 2_000_000
OUTPUT_BYTES, ERROR_BYTES = 12_000, 2_000


class Part(NamedTuple):
    """One command of the suite.

    Attributes:
        script: file without `.py`.   what: for the report.
        arguments: {tokenizer}, {data}, {peer}, {outlines} are filled in.
        quick: further arguments of a trial; they stand last, so they win.
        peers: modules that `{peer}` should have; with none of them the arguments that ask for it are left out.
    """

    script: str
    what: str
    arguments: str
    quick: str = ""
    peers: tuple[str, ...] = ()


_DATA = "--tokenizer {tokenizer} --data {data} --peer {peer}"
_JSON = f"{_DATA} --engines llguidance"
_ENGINES = ("llguidance", "xgrammar")
PARTS = {
    "json_schema": Part("json_schema", "JSON Schema, properties in any order.", f"{_JSON} --order any", "-n 12",
                        _ENGINES[:1]),
    "json_schema_in_order": Part("json_schema", "JSON Schema, properties in the schema's order (the default of "
                                 "compile_json_schema); valid instances in another order are then refused.",
                                 f"{_JSON} --order schema", "-n 12", _ENGINES[:1]),
    "json_schema_fresh": Part("json_schema", "The same with a new automaton, caches emptied, for every instance.",
                              f"{_JSON} --order schema --fresh", "-n 8", _ENGINES[:1]),
    "json_schema_xgrammar": Part("json_schema", "A sample in the schema's order beside xgrammar too, which works for "
                                 "minutes on some schemas.", f"{_DATA} --order schema --timeout 10 --every 72", "-n 8",
                                 _ENGINES),
    "grammar": Part("grammar", "Lark grammars.", "--tokenizer {tokenizer} --peer {peer} --outlines {outlines}",
                    "-n 2 --seconds 10 --grammar json arithmetic", _ENGINES),
    "regex_index": Part("regex_index", "Regexes: eager and lazy.", "--tokenizer {tokenizer} --peer {peer}",
                        "--only date time ssn", ("outlines_core",)),
    "generate_speed": Part("generate_speed", "generate() with a constraint and without.",
                           "--tokenizer {tokenizer} --parts tokens", "--runs 3 --batches 1 --models embedded"),
    "generation": Part("generation", "Sampler against generate().", "--tokenizer {tokenizer} --runs 3",
                       "--runs 2 --batches 1 --only embedded --new 16"),
    "inference": Part("inference", "SMC with hard constraints, against llamppl.", "--peer {peer}", "-n 1 --tokens 10",
                      ("llamppl",)),
    "byte_lm": Part("byte_lm", "Byte-level language models, against genlm-bytes.", "{tokenizer} --peer {peer}",
                    "-n 1 -K 1", ("genlm.bytes",)),
    "dropin": Part("dropin", "Code written for PyPI's outlines_core.", "--tokenizer {tokenizer} --peer {peer}", "",
                   ("outlines_core",)),
    "batch": Part("batch", "A step of a batch on the CPU: masks filled and applied.",
                  f"{_DATA} --rounds 1 --batches 1 64 256",
                  "--batches 1 8 --steps 8 --threads 1 --schemas 6", _ENGINES),
    "micro": Part("micro", "Where the time of a step goes.", "--tokenizer {tokenizer}"),
    "memory": Part("memory", "Memory of many schemas, and under a soak.", "--tokenizer {tokenizer} --data {data}",
                   "-n 40 --requests 200 --soaked 20"),
    "startup": Part("startup", "What a new process takes to its first mask.", "--tokenizer {tokenizer}", "--starts 2"),
}  # fmt: skip


def command_of(name: str, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The command of a part, less Python and script; and notes on what had to be left out."""
    part, notes = PARTS[name], []
    peer = next((python for python in args.peer for module in part.peers if has_module(python, module)), None)
    if part.peers and peer is None:
        notes.append(f"no peer: none of the Pythons given has {' or '.join(part.peers)}")
    elif peer is not None:
        missing = [module for module in part.peers if not has_module(peer, module)]
        notes += [f"no {module} in {peer}" for module in missing]
    outlines = next((python for python in args.peer if has_module(python, "outlines")), None)
    if "{outlines}" in part.arguments and outlines is None:
        notes.append("no peer has outlines")
    values = {"tokenizer": args.tokenizer, "data": args.data, "peer": peer, "outlines": outlines}
    words: list[str] = []
    for word in part.arguments.split():
        if word.startswith("{"):
            value = values[word[1:-1]]
            if value is not None:
                words.append(str(value))
            elif words and words[-1].startswith("--"):
                words.pop()
        else:
            words.append(word)
    if part.script == "json_schema" and args.every > 1 and "--every" not in words:
        words += ["--every", str(args.every)]
    if args.quick:
        words += part.quick.split()
    if name == "startup" and args.cold:
        words.append("--cold")
    return words, notes


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run a part; its record."""
    words, notes = command_of(name, args)
    script = HERE / f"{PARTS[name].script}.py"
    shown = " ".join(["python", f"benchmarks/{script.name}", *words])
    record: dict[str, Any] = {"command": shown, "date": time.strftime("%F"), "machine": machine(), "quick": args.quick}
    before, began = os.getloadavg()[0], time.perf_counter()
    raw: Any = None
    if not script.exists():
        record["failed"] = f"there is no benchmarks/{script.name}"
    else:
        with tempfile.TemporaryDirectory() as directory:
            out, log, errors = (pathlib.Path(directory, name) for name in ("out.json", "log", "errors"))
            with log.open("w") as file, errors.open("w") as error_file:
                command = [sys.executable, str(script), *words, "--out", str(out)]
                try:
                    done = subprocess.run(command, stdout=file, stderr=error_file, check=False, timeout=args.timeout)
                    status: int | None = done.returncode
                except subprocess.TimeoutExpired:
                    status = None
            text = log.read_text(errors="replace")
            if status != 0:
                record["failed"] = f"status {status}" if status is not None else f"no end after {args.timeout:.0f} s"
            elif not out.exists():
                record["failed"] = "it wrote no figures"
            if "failed" in record:
                said = errors.read_text(errors="replace")[-ERROR_BYTES:]
                print(said, file=sys.stderr)
                text += f"\n{said}"
            if out.exists() and out.stat().st_size:
                raw = json.loads(out.read_text())
        record["output"] = text if len(text) < OUTPUT_BYTES else f"...\n{text[-OUTPUT_BYTES:]}"
    record |= {"seconds": time.perf_counter() - began, "load": [before, os.getloadavg()[0]], "notes": notes}
    if raw is not None:
        record["summary"] = summary(PARTS[name].script, raw)
    return record


def without_paths(text: str, args: argparse.Namespace) -> str:
    """A record names files, not where they lie on this machine."""
    places = {
        str(args.tokenizer): pathlib.Path(str(args.tokenizer)).name,
        str(args.data): pathlib.Path(str(args.data)).name,
    }
    places |= dict.fromkeys(args.peer, "PEER") | {sys.executable: "python", str(HERE.parent): "."}
    for place in sorted(places, key=len, reverse=True):
        if "/" in place:
            text = text.replace(place, places[place])
    return text


def machine() -> dict[str, str]:
    """What figures depend on."""
    import importlib.metadata

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "(none)"

    git = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    packages = ("numpy", "numba", "lark", "torch", "transformers")
    return {
        "commit": git.stdout.strip() or "unknown",
        "CPU": f"{processor} ({os.cpu_count()} cores)",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def write_report(directory: pathlib.Path, *, with_plots: bool) -> None:
    records = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    for old in directory.glob("*.png"):
        old.unlink()
    pictures = plots.draw(records, directory) if with_plots else {}
    expected = {name: part.what for name, part in PARTS.items()}
    (directory / "README.md").write_text(markdown(records, expected, pictures))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer directory")
    parser.add_argument("--data", type=pathlib.Path, help="schemas in MaskBench's form")
    parser.add_argument("--peer", nargs="+", default=[], help="Pythons of environments with other engines")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="run only these; none: make the report again")
    parser.add_argument("--every", type=int, default=1, help="JSON Schemas: only every K-th one of DATA", metavar="K")
    parser.add_argument("--quick", action="store_true", help="few samples: a trial of the suite, not a measurement")
    parser.add_argument("--cold", action="store_true", help="startup also compiles all kernels from nothing")
    parser.add_argument("--timeout", type=float, default=6 * 3600.0, help="seconds that a part may take")
    parser.add_argument("--no-plots", action="store_true")
    parser.add_argument("--record", type=pathlib.Path, default=HERE / "record", help="where records and report go")
    args = parser.parse_args()
    chosen = list(PARTS) if args.only is None else args.only
    if not args.no_plots and not plots.has_matplotlib():
        parser.error(plots.MATPLOTLIB_MISSING)
    if chosen and (args.tokenizer is None or args.data is None):
        parser.error("--tokenizer and --data are needed")
    args.record.mkdir(parents=True, exist_ok=True)
    bad = []
    for name in chosen:
        print(f"== {name}", flush=True)
        record = run(name, args)
        text = without_paths(json.dumps(record, separators=(",", ":")), args)
        (args.record / f"{name}.json").write_text(text + "\n")
        print(f"   {record.get('failed', 'done')} in {record['seconds']:.0f} s", flush=True)
        if "failed" in record:
            bad.append(name)
        write_report(args.record, with_plots=not args.no_plots)
    write_report(args.record, with_plots=not args.no_plots)
    size = size_of(args.record)
    print(f"{args.record / 'README.md'}: {size / 1e6:.2f} MB with records and pictures")
    if size > MOST_BYTES:
        print(f"that is more than {MOST_BYTES / 1e6:.0f} MB", file=sys.stderr)
        return 1
    if bad:
        print(f"failed: {', '.join(bad)}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
