"""The report of the benchmarks from made-up records, and that each benchmark says how it is used."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROGRAMS = sorted(p.name for p in BENCHMARKS.glob("*.py") if "argparse.ArgumentParser" in p.read_text())


@pytest.fixture(scope="module")
def modules():
    """The modules of `benchmarks/`, which is not a package."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    names = ("summaries", "budgets", "report", "plots", "workers")
    found = {name: importlib.import_module(name) for name in names}
    spec = importlib.util.spec_from_file_location("benchmarks_main", BENCHMARKS / "__main__.py")
    found["main"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found["main"])
    yield found
    sys.path[:] = before


def json_samples(scale: int) -> list[dict]:
    rows = [
        {
            "id": "a",
            "ttfm": 1_000_000 * scale,
            "tbm": [1000 * scale * k for k in range(1, 101)],
            "new": [5000],
            "wrong": [],
        },
        {"id": "b", "ttfm": 3_000_000 * scale, "tbm": [2000 * scale] * 50, "new": [], "wrong": [[1, "accepted"]]},
    ]
    return [*rows, {"id": "c", "refused": "UnsupportedFeatureError: it says why"}]


def record(summary, **more):
    about = {"command": "python benchmarks/x.py", "date": "2020-01-01", "machine": {"CPU": "made up"}, "seconds": 1.0}
    return {**about, "load": [0.1, 0.2], "notes": [], "summary": summary, "output": "it printed this", **more}


@pytest.fixture
def records(modules):
    summary = modules["summaries"].summary
    samples = {"ours": json_samples(1), "llguidance": json_samples(4), "xgrammar": json_samples(2)}
    versions = {"ours": "0", "llguidance": "1", "xgrammar": "2"}
    text = {"version": "0", "tbm": [1000, 2000, 3000], "new": [3000], "wrong": [], "cold": 10**6, "rss_used": 5.0}
    theirs = {**text, "tbm": [10_000] * 3, "cold": 10**7}
    sides = {"fill": 10.0, "apply": 20.0, "step": 30.0, "bound": 18.0, "new": 30.0, "bound_new": 29.0}
    case = {"batch": 64, "dtype": "float32", "threads": 1, "ratios": {"step: ours first / llguidance": 0.4}}
    case["engines"] = {"ours first": sides, "llguidance first": {**sides, "step": 75.0}}
    marks = [{"requests": 10 * k, "mib": 5.0} for k in range(1, 9)]
    soak = {"marks": marks, "flat": True, "before_mib": 5.0, "after_mib": 5.0, "requests": 80}
    return {
        "json_schema": record(summary("json_schema", {"about": {"versions": versions}, "results": samples})),
        "grammar": record(
            summary(
                "grammar",
                {"about": {}, "results": {"json": {"ours": text, "llguidance": theirs, "x": {"refused": "no"}}}},
            )
        ),
        "batch": record({"cases": [case]}),
        "memory": record(
            {"schemas": {"schemas": 9, "kept": {"mib": 2000.0}, "dropped": {"mib": 3.0}}, "per_request": soak}
        ),
        "inference": record(None, failed="status 1", quick=True),
    }


def test_a_curve_keeps_quantiles(modules):
    curve, at = modules["summaries"].curve, modules["summaries"].at
    found = curve([1000.0 * k for k in range(10_000)])
    assert found["n"] == 10_000
    assert len(found["quantiles"]) == 1001
    assert [at(found, name) for name in ("p50", "p90", "p99.9", "max")] == [5000, 9000, 9990, 9999]
    assert at(found, "mean") == pytest.approx(4999.5)
    assert at(curve([1234.5678]), "p99.9") == 1.235
    assert curve([]) == {}


def test_long_lists_are_thinned_and_nothing_else(modules):
    thinned = modules["summaries"].thinned
    found = thinned({"samples": list(range(50_000)), "few": [1, 2.00000049, "x"], "why": None})
    assert found["samples"]["n"] == 50_000
    assert found["samples"]["quantiles"][0] == 0
    assert found["samples"]["quantiles"][-1] == 49_999 or found["samples"]["quantiles"][-1] == 50_000
    assert found["few"] == [1, 2.0, "x"]
    assert found["why"] is None


def test_json_schemas_are_counted(modules, records):
    found = records["json_schema"]["summary"]
    ours = found["engines"]["ours"]
    assert (ours["schemas"], ours["compiled"], ours["refused"], ours["passing"]) == (3, 2, 1, 1)
    assert ours["instances"] == {"wrongly accepted": 1}
    assert ours["refusals"] == {"UnsupportedFeatureError": 1}
    assert ours["tbm"]["n"] == 150
    assert set(found["common"]) == {"llguidance", "xgrammar", "llguidance and xgrammar"}
    assert found["common"]["llguidance"]["schemas"] == 2


def test_budgets_are_judged_or_said_to_be_open(modules, records):
    found = modules["budgets"].verdicts(records)
    by_name = {v.what: v for v in found}
    tbm = by_name["MaskBench TBM / llguidance, properties in any order, p50"]
    assert tbm.reached is True
    assert tbm.value.startswith("0.250")
    assert by_name["MaskBench schemas, any order, passing"].reached is False
    assert by_name["MaskBench schemas, any order, instances wrongly accepted"].value == "1"
    assert by_name["batch step / llguidance, B=64, float32, 1 threads, new states"].reached is True
    assert by_name["memory of 9 schemas, automata kept"].reached is False
    assert by_name["memory under a soak, per request"].reached is True
    for what, reason in (
        ("memory under a soak", "lacks 'long_lived'"),
        ("generate() with a constraint / without", "no record of generate_speed"),
        ("kernels compiled from nothing", "no record of startup"),
    ):
        assert by_name[what].reached is None
        assert reason in by_name[what].value
    budgets = {what for what, *_ in modules["budgets"]._BUDGETS}
    assert [what for what in budgets if not any(v.what.startswith(what) for v in found)] == []


def test_every_part_is_in_the_report(modules, records):
    expected = {name: part.what for name, part in modules["main"].PARTS.items()}
    text = modules["report"].markdown(records, expected, {"a.png": "a picture"})
    assert "| inference | **failed**: status 1 (`--quick`: few samples) |" in text
    assert "| generation | **not measured** |" in text
    assert "no measurements: inference." in text
    assert "| TBM ours / llguidance | 0.250 |" in text
    assert "| ours / llguidance | 0.100 |" in text
    assert "![a picture](a.png)" in text
    assert text.count("it printed this") == len(records)
    for name in expected:
        assert f"| {name} |" in text


def test_pictures(modules, records, tmp_path):
    pytest.importorskip("matplotlib")
    found = modules["plots"].draw(records, tmp_path)
    assert set(found) == {
        "json_schema_tbm.png", "json_schema_ttfm.png", "json_schema_passing.png", "grammar_tbm.png", "batch.png",
        "memory_soak.png",
    }  # fmt: skip
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in found)


def test_a_part_whose_program_is_missing_fails_by_name(modules, tmp_path, monkeypatch):
    main = modules["main"]
    monkeypatch.setitem(main.PARTS, "gone", main.Part("no_such_file", "nothing", "--tokenizer {tokenizer}"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--tokenizer", "t", "--data", "d", "--only", "gone", "--no-plots",
                                      "--record", str(tmp_path)])  # fmt: skip
    assert main.main() == 1
    assert json.loads((tmp_path / "gone.json").read_text())["failed"] == "there is no benchmarks/no_such_file.py"
    assert "no benchmarks/no_such_file.py" in (tmp_path / "README.md").read_text()


def test_a_record_shows_errors_and_no_paths(modules, tmp_path, monkeypatch):
    main = modules["main"]
    fails = main.Part("generation", "nothing", "--tokenizer {tokenizer} --no-such-option")
    monkeypatch.setitem(main.PARTS, "fails", fails)
    arguments = ["--tokenizer", "/somewhere/tok", "--data", "/d/x.gz", "--only", "fails", "--no-plots"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--record", str(tmp_path)])
    assert main.main() == 1
    found = json.loads((tmp_path / "fails.json").read_text())
    assert found["failed"] == "status 2"
    assert "unrecognized arguments: --no-such-option" in found["output"]
    assert found["command"] == "python benchmarks/generation.py --tokenizer tok --no-such-option"
    assert "/somewhere" not in (tmp_path / "fails.json").read_text() + (tmp_path / "README.md").read_text()


def test_arguments_of_parts(modules):
    import argparse

    main = modules["main"]
    args = argparse.Namespace(tokenizer="/t", data="/d", peer=[], quick=True, cold=True, every=1)
    words, notes = main.command_of("json_schema_xgrammar", args)
    given = ["--tokenizer", "/t", "--data", "/d", "--order", "schema", "--timeout", "10", "--every", "72"]
    assert words == [*given, *main.PARTS["json_schema_xgrammar"].quick.split()]
    assert notes == ["no peer: none of the Pythons given has llguidance or xgrammar"]
    assert main.command_of("json_schema", args)[1] == ["no peer: none of the Pythons given has llguidance"]
    assert main.command_of("byte_lm", args)[0] == ["/t", "-n", "1", "-K", "1"]
    assert main.command_of("startup", args)[0][-1] == "--cold"
    args.every, args.quick = 5, False
    assert main.command_of("json_schema_fresh", args)[0][-2:] == ["--every", "5"]
    assert main.command_of("json_schema_xgrammar", args)[0][-2:] == ["--every", "72"]  # its own
    assert "--every" not in main.command_of("grammar", args)[0]


def test_a_worker_answers_or_says_that_it_has_ended(modules, tmp_path):
    program = tmp_path / "echo.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from workers import serve\n"
        "def answer(x):\n    print('noise')\n    return x + 1 if x else sys.exit(3)\n"
        "serve(lambda: ('ready', answer))\n"
    )
    worker = modules["workers"].Worker([sys.executable, str(program)])
    assert worker.greeting == "ready"
    assert worker.ask(1) == 2
    assert "status 3" in worker.ask(0)["failed"]
    assert "failed" in worker.ask(1)


@pytest.mark.parametrize(
    "program", [pytest.param(p, marks=pytest.mark.slow) if p == "generate_regex.py" else p for p in PROGRAMS]
)
def test_help(program):
    path = BENCHMARKS if program == "__main__.py" else BENCHMARKS / program
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
