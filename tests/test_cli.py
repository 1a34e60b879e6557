"""The command line: exit codes, one sentence for bad input, and what each command prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compress_rec import cli
from compress_rec.errors import CompressRecError
from compress_rec.listing import cards
from compress_rec.measure import MEASURES
from compress_rec.recipe import RECIPES
from tests.conftest import TinyRun

ROOT = Path(__file__).parent.parent


class Told:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command line in this process; rich writes to what pytest captures."""
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Told:
        monkeypatch.setattr(cli, "out", Console(width=200))
        monkeypatch.setattr(cli, "err", Console(width=200, stderr=True))
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Told(ended.value.code, printed.out, printed.err)  # type: ignore[arg-type]

    return run


def refused(told: Told) -> str:
    """Check that a refusal is one sentence, exit code 2 and no traceback, and return it."""
    assert told.code == 2
    assert told.err.startswith("compress-rec: ")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    return told.err.removeprefix("compress-rec: ").strip()


def test_a_missing_study_and_a_wrong_one_are_one_sentence(call: Any, tmp_path: Path) -> None:
    missing = tmp_path / "no.toml"
    assert refused(call("study", missing)) == (
        f"the study file {missing} does not exist: check the path; studies/demo.toml is one to start from"
    )
    bad = tmp_path / "bad.toml"
    bad.write_text('[data]\nname = "planted"\n[variants]\na = ["quantise_int8"]\n')
    assert "did you mean 'quantize_int8'?" in refused(call("study", bad, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists(), "nothing is written for a study that cannot be run"


def test_a_study_is_run_and_says_where_its_report_is(call: Any, tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    told = call("study", tiny_run.study, "--out", folder)
    assert told.code == 0
    last = told.out.strip().splitlines()[-1]
    assert last == f"The report is in {folder / 'report.html'} (and report.md, report.jsonl beside it)."


@pytest.mark.parametrize(
    ("gates", "code", "word"),
    [
        ('"disk_bytes" = { at_most = 1.0, of = "reference", variants = ["int8"] }', 0, "verdict: pass"),
        ('"disk_bytes" = { at_most = 0.01, of = "reference", variants = ["int8"] }', 1, "verdict: fail"),
        ('"disk_bytes" = { at_most = 1.0, variants = ["refused"] }', 3, "verdict: not established"),
    ],
)
def test_a_verdict_exits_as_its_gates_say(call: Any, tiny_run: TinyRun, tmp_path: Path, gates: str, code: int, word: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(tiny_run.folder / "report.jsonl", folder)
    (folder / "study.toml").write_text(f"[gates]\n{gates}\n")
    told = call("verdict", folder)
    assert told.code == code, told.out + told.err
    assert word in told.out.splitlines()[-1]


def test_a_verdict_on_no_run_is_refused(call: Any, tiny_run: TinyRun, tmp_path: Path) -> None:
    assert refused(call("verdict", tmp_path)).startswith(f"there is no report at {tmp_path / 'report.jsonl'}: run the study first")
    shutil.copy(tiny_run.folder / "report.jsonl", tmp_path)
    assert "study.toml cannot be read" in refused(call("verdict", tmp_path))
    (tmp_path / "study.toml").write_text("gates = 3\n")
    assert "must be a table" in refused(call("verdict", tmp_path))


def test_recommend_prints_titles_scores_and_reasons(call: Any, tiny_run: TinyRun) -> None:
    told = call("recommend", tiny_run.folder / "variants" / "int8", "--history", "i00", "--history", "i01", "--k", "3")
    assert told.code == 0
    for word in ("item", "cosine", "because of"):
        assert word in told.out
    rows = [line for line in told.out.splitlines() if re.search(r"-?0\.\d{3} ", line)]
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--history", "i00", "--k", "25"), "k must be between 1 and the catalogue's 24 items, but 25 came"),
        (("--history", "i00", "--k", "0"), "k must be between 1 and the catalogue's 24 items, but 0 came"),
        ((), "a recommendation needs at least one item of the history: give --history once or several times"),
        (("--history", "zzz"), "the catalogue has no item with the id or text 'zzz'"),
        (("--history", "i00", "--catalogue", "/nowhere.json"), "/nowhere.json"),
    ],
)
def test_recommend_refuses_what_it_cannot_use(call: Any, tiny_run: TinyRun, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(call("recommend", tiny_run.folder / "variants" / "reference", *arguments))


def test_an_unknown_variant_folder_and_an_unknown_format(call: Any, tiny_run: TinyRun, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    wanted = f"{nowhere} is no folder: a saved variant or a Hugging Face model was wanted; check the path"
    assert refused(call("export", nowhere, "--out", tmp_path / "out")) == wanted
    variant = tiny_run.folder / "variants" / "reference"
    assert refused(call("export", variant, "--out", tmp_path / "out", "--format", "onxx")).startswith(
        "there is no format called 'onxx'; did you mean 'onnx'?"
    )
    assert refused(call("export", variant, "--out", tmp_path / "out", "--role", "buyer"))
    assert not (tmp_path / "out").exists()


def test_a_truncated_tensor_file_is_one_sentence(call: Any, tiny_run: TinyRun, tmp_path: Path) -> None:
    variant = Path(shutil.copytree(tiny_run.folder / "variants" / "int8", tmp_path / "int8"))
    file = variant / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    told = refused(call("export", variant, "--out", tmp_path / "out"))
    assert str(file) in told
    assert not (tmp_path / "out").exists()


def test_an_unknown_data_set(call: Any, tmp_path: Path) -> None:
    assert "ml-100k" in refused(call("data", "ml-100", "--folder", tmp_path))


def test_list_shows_everything_that_the_folders_hold(call: Any) -> None:
    told = call("list")
    assert told.code == 0
    shown = set(re.findall(r"[a-z][a-z_0-9]+", told.out))
    for kind, found in cards().items():
        assert found, kind
        assert set(found) <= shown, kind
        assert all(card for card in found.values()), kind
    assert set(RECIPES.classes()) | set(MEASURES.classes()) <= shown
    assert "cosine_top_k" in cards()["op"]
    assert "served by: " in cards()["op"]["cosine_top_k"]


def test_doctor_says_what_serves_each_op(call: Any) -> None:
    told = call("doctor")
    assert told.code == 0
    for op in cards()["op"]:
        assert op in told.out


def test_wrong_usage_is_code_2_and_no_traceback(call: Any) -> None:
    for arguments in (("studdy",), ("study",), ("study", "a.toml", "--oot", "x"), ("recommend", "x", "--k", "many")):
        told = call(*arguments)
        assert told.code == 2
        assert "Traceback" not in told.err
        assert told.err


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), CompressRecError("no")])
def test_an_interruption_is_130_and_says_that_the_next_run_goes_on(
    call: Any, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    import compress_rec.run

    def stop(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(compress_rec.run, "run", stop)
    told = call("study", "any.toml")
    if isinstance(fault, KeyboardInterrupt):
        assert (told.code, told.err.strip()) == (130, "stopped; what is finished stays, the same command goes on from there")
    else:
        assert refused(told) == "no"


def test_as_a_program_of_its_own(tmp_path: Path) -> None:
    """Exit code and sentence hold outside of this process too, from any folder."""
    done = subprocess.run(
        [sys.executable, "-m", "compress_rec", "study", "missing.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip() == (
        "compress-rec: the study file missing.toml does not exist: check the path; studies/demo.toml is one to start from"
    )
    assert not list(tmp_path.iterdir())
