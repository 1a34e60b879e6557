"""A whole study: what it leaves behind, that a second run makes nothing again, and that failures and interruptions cost only themselves."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from rich.console import Console

from compress_rec import fitting, op, stations
from compress_rec import run as run_module
from compress_rec.errors import CompressRecError
from compress_rec.making import training_texts
from compress_rec.measures.disk_bytes import DiskBytes
from compress_rec.measures.ndcg import Ndcg
from compress_rec.measures.parameters import Parameters
from compress_rec.recipes.factorize import Factorize
from compress_rec.report import Report, read
from compress_rec.run import run
from compress_rec.variant import Variant
from tests.conftest import TinyRun
from tests.tiny_study import write_study

RANKING = ("ndcg@5", "cold_recall@5", "overlap@5", "attribution_agreement@3[sample=8]")
NAMES = ("reference", "int8", "half", "half-int8")


@pytest.fixture
def copied(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may go on with."""
    return Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))


def quiet() -> Console:
    return Console(quiet=True)


def values(report: Report, measures: tuple[str, ...] = RANKING) -> dict[Any, Any]:
    """The samples of the ranking measures, for comparison bit for bit."""
    return {key: row.samples for key, row in report.cells.items() if key[1] in measures}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records everything that a run makes: the teacher, the fit, steps of plans and measures taken."""
    done: list[Any] = []
    teach, fit, then = fitting.teach_ids, fitting.fit, Variant.then

    def tell(name: Any, inner: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            done.append(name(*arguments) if callable(name) else name)
            return inner(*arguments, **named)

        return wrapped

    monkeypatch.setattr(fitting, "teach_ids", tell("teacher", teach))
    monkeypatch.setattr(fitting, "fit", tell("fit", fit))
    monkeypatch.setattr(Variant, "then", tell(lambda self, step, *_: step.recipe.label, then))
    one, many = run_module._guarded_one, run_module._guarded
    monkeypatch.setattr(run_module, "_guarded_one", tell(lambda measure, piece, *_: (measure.label, piece.name), one))
    monkeypatch.setattr(run_module, "_guarded", tell("clocks", many))
    return done


def test_a_study_leaves_three_reports_its_file_and_its_variants(tiny_run: TinyRun) -> None:
    finished = tiny_run.finished
    assert (finished.html.name, finished.markdown.name, finished.lines.name) == ("report.html", "report.md", "report.jsonl")
    assert all(path.parent == tiny_run.folder and path.stat().st_size for path in (finished.html, finished.markdown, finished.lines))
    assert (tiny_run.folder / "study.toml").read_bytes() == tiny_run.study.read_bytes()
    assert {path.name for path in (tiny_run.folder / "variants").iterdir()} == set(NAMES)
    assert read(finished.lines).variants == finished.report.variants == (*NAMES, "refused", "popularity", "id lookup", "zero-shot")
    # nothing half-written is left aside
    assert not list(tiny_run.folder.rglob(".*"))


def test_every_variant_has_every_measure_and_the_refused_one_its_reason(tiny_run: TinyRun) -> None:
    cells = tiny_run.finished.report.cells
    for name in NAMES:
        for measure in tiny_run.finished.report.measures:
            row = cells[name, measure]
            assert row.samples is not None, (name, measure, row.failure)
            assert row.samples.defined, (name, measure)
    rows = [row for row in cells.values() if row.variant == "refused"]
    assert [row.measure for row in rows] == ["build"]
    assert rows[0].failure is not None
    assert rows[0].failure.startswith("the step 'factorize' after quantize_int8 cannot be done: 'factorize' cannot follow 'quantize_int8'")
    assert cells["popularity", "latency[repeats=3]"].not_applicable is not None
    assert cells["popularity", "ndcg@5"].kind == "baseline"


def test_variants_are_measured_as_they_would_be_served(tiny_run: TinyRun, copied: Path, tmp_path: Path) -> None:
    def runtimes(report: Any) -> set[str]:
        return {row.samples.notes["runtime"] for row in report.rows if row.measure == "latency[repeats=3]" and row.samples is not None}

    assert runtimes(tiny_run.finished.report) == {"compiled" if "avx2" in op.tiers() else "torch"}
    file = tmp_path / "torch.toml"
    file.write_text("compiled = false\n" + tiny_run.study.read_text(encoding="utf-8"), encoding="utf-8")
    finished = run(file, copied, Console(quiet=True))
    assert finished is not None
    assert runtimes(finished.report) == {"torch"}


def test_the_lines_are_the_format_that_other_tools_read(tiny_run: TinyRun) -> None:
    first, *rest = [json.loads(line) for line in tiny_run.finished.lines.read_text(encoding="utf-8").splitlines()]
    assert first["schema"] == 1
    assert first["environment"]["versions"]["torch"] == torch.__version__
    wanted = {"schema", "variant", "steps", "measure", "unit", "better", "samples", "failure"}
    for line in rest:
        assert wanted <= set(line)
        assert line["schema"] == 1
        assert isinstance(line["steps"], list)
        assert line["better"] in ("higher", "lower", "neither")
        assert line["failure"] is None or line["samples"] is None
        if line["samples"] is not None:
            assert set(line["samples"]) == {"values", "units", "seed"}
            assert all(len(ids) == len(line["samples"]["values"]) for ids in line["samples"]["units"].values())
    by_key = {(line["variant"], line["measure"]): line for line in rest}
    ndcg = by_key["reference", "ndcg@5"]
    assert (ndcg["unit"], ndcg["better"], ndcg["steps"], list(ndcg["samples"]["units"])) == ("", "higher", [], ["user"])
    assert by_key["reference", "overlap@5"]["samples"]["values"] == [1.0] * len(ndcg["samples"]["values"])
    assert by_key["int8", "disk_bytes"]["samples"]["values"][0] < by_key["reference", "disk_bytes"]["samples"]["values"][0]
    steps = by_key["half-int8", "ndcg@5"]["steps"]
    assert [step["recipe"] for step in steps] == ["factorize", "quantize_int8"]
    assert (steps[0]["method"], steps[0]["keep"]) == ("plain", 0.5)


def test_the_console_names_stations_drops_and_refusals(tiny_run: TinyRun) -> None:
    for word in ("data", "fit", "variants", "measures", "report"):
        assert f"  {word} took " in tiny_run.printed
    assert "planted: 120 users, 24 items, 720 events" in tiny_run.printed
    assert "refused could not be made: " in tiny_run.printed


def test_a_second_run_makes_nothing_again(tiny_run: TinyRun, copied: Path, work: list[Any]) -> None:
    again = run(tiny_run.study, copied, quiet())
    # what could not be made is tried again, and nothing else
    assert work == ["factorize"]
    assert again.report.rows == tiny_run.finished.report.rows


def test_same_seed_same_machine_same_bits(tiny_run: TinyRun, tmp_path: Path) -> None:
    other = run(tiny_run.study, tmp_path / "elsewhere", quiet())
    assert values(other.report) == values(tiny_run.finished.report)
    for name in NAMES:
        file = f"variants/{name}/tensors.safetensors"
        assert (tmp_path / "elsewhere" / file).read_bytes() == (tiny_run.folder / file).read_bytes(), name


def test_a_changed_plan_makes_that_variant_alone(tiny_run: TinyRun, copied: Path, work: list[Any], tmp_path: Path) -> None:
    text = tiny_run.study.read_text().replace('half = [{ recipe = "factorize", method = "plain", keep = 0.5 }]', 'half = ["tucker"]')
    changed = tmp_path / "changed.toml"
    changed.write_text(text)
    again = run(changed, copied, quiet())
    made = [label for label in work if isinstance(label, str)]
    assert made == ["tucker", "factorize", "clocks"], "the changed plan, the refused one, and the clocks of all in one round"
    assert {label for label in work if not isinstance(label, str)} == {
        (measure, "half") for measure in (*RANKING, "disk_bytes") if measure != "latency[repeats=3]"
    }
    before = {key: samples for key, samples in values(tiny_run.finished.report).items() if key[0] != "half"}
    assert {key: samples for key, samples in values(again.report).items() if key[0] != "half"} == before


def test_a_changed_fit_makes_everything_that_hangs_on_it(tiny_run: TinyRun, copied: Path, work: list[Any], tmp_path: Path) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text(tiny_run.study.read_text().replace("passes = 2", "passes = 1"))
    run(changed, copied, quiet())
    assert "fit" in work
    assert "teacher" not in work
    assert ("ndcg@5", "reference") in work
    assert ("ndcg@5", "int8") in work


def test_a_measure_that_breaks_is_a_row_and_is_tried_again(
    tiny_run: TinyRun, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "more.toml"
    study.write_text(tiny_run.study.read_text().replace('"disk_bytes"', '"disk_bytes", "parameters"'))
    with monkeypatch.context() as broken:
        take = Parameters.take

        def breaks(self: Parameters, ranker: Any, trial: Any) -> Any:
            if ranker.name == "int8":
                raise RuntimeError("no such luck")
            return take(self, ranker, trial)

        broken.setattr(Parameters, "take", breaks)
        cells = run(study, copied, quiet()).report.cells
    assert cells["int8", "parameters"].failure == "RuntimeError: no such luck"
    assert cells["int8", "parameters"].samples is None
    assert cells["half", "parameters"].samples is not None
    again = run(study, copied, quiet()).report.cells
    assert again["int8", "parameters"].failure is None
    assert again["int8", "parameters"].samples is not None


def test_a_recipe_that_breaks_is_a_row_and_the_rest_is_made(
    tiny_run: TinyRun, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "more.toml"
    study.write_text(tiny_run.study.read_text().replace("[variants]", '[variants]\nnew = [{ recipe = "factorize", keep = 0.75 }]'))

    def breaks(self: Factorize, *_: Any) -> Any:
        raise ArithmeticError("the decomposition did not converge")

    monkeypatch.setattr(Factorize, "apply", breaks)
    cells = run(study, copied, quiet()).report.cells
    assert cells["new", "build"].failure == "ArithmeticError: the decomposition did not converge"
    assert ("new", "ndcg@5") not in cells
    assert cells["int8", "ndcg@5"].samples is not None
    assert not (copied / "variants" / "new").exists()


def test_an_interruption_leaves_what_is_finished_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: TinyRun, work: list[Any]
) -> None:
    study, folder = tiny_run.study, tmp_path / "run"
    apply, take = Factorize.apply, Ndcg.take
    with monkeypatch.context() as stopped:

        def stops(*_: Any) -> Any:
            raise KeyboardInterrupt

        stopped.setattr(Factorize, "apply", stops)
        with pytest.raises(KeyboardInterrupt):
            run(study, folder, quiet())
    assert {path.name for path in (folder / "variants").iterdir()} == {"reference", "int8"}
    assert Variant.load(folder / "variants" / "int8").name == "int8"
    assert not (folder / "report.html").exists()
    assert Factorize.apply is apply
    assert work == ["teacher", "fit", "quantize_int8", "factorize[method=plain]"]
    work.clear()
    with monkeypatch.context() as stopped:

        def late(self: DiskBytes, ranker: Any, trial: Any) -> Any:
            raise KeyboardInterrupt

        stopped.setattr(DiskBytes, "take", late)
        with pytest.raises(KeyboardInterrupt):
            run(study, folder, quiet())
    assert work[:3] == ["factorize[method=plain]", "quantize_int8", "factorize"], "the finished variant is not made again"
    assert ("ndcg@5", "reference") in work
    assert Ndcg.take is take
    work.clear()
    finished = run(study, folder, quiet())
    assert work[0] == "factorize"
    assert {label for label in work if isinstance(label, tuple)} == {
        (measure, name) for measure in ("disk_bytes", "attribution_agreement@3[sample=8]") for name in (*NAMES, *BASELINES)
    }
    assert values(finished.report) == values(tiny_run.finished.report)


BASELINES = ("popularity", "id lookup", "zero-shot")


@pytest.mark.parametrize("damaged", ["variants/int8", "variants/reference", "."])
def test_what_is_damaged_is_made_again_and_said(tiny_run: TinyRun, copied: Path, work: list[Any], damaged: str) -> None:
    """A cut-off tensor file, or one that is gone, of a variant, the model or the teacher."""
    name = "teacher.safetensors" if damaged == "." else "tensors.safetensors"
    file = copied / damaged / name
    if damaged == "variants/reference":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:200])
    console = Console(record=True, file=io.StringIO(), width=1000)
    again = run(tiny_run.study, copied, console)
    title = {"variants/int8": "int8", "variants/reference": "reference", ".": "the teacher"}[damaged]
    assert f"{title} is made again: the tensor file {file} cannot be read" in console.export_text()
    assert work == [*{"int8": ["quantize_int8"], "reference": ["fit"], "the teacher": ["teacher"]}[title], "factorize"]
    assert file.read_bytes() == (tiny_run.folder / damaged / name).read_bytes()
    assert again.report.rows == tiny_run.finished.report.rows


def test_a_full_disk_stops_the_run_and_the_next_one_goes_on(
    tiny_run: TinyRun, copied: Path, work: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no variant's fault: no row, and nothing half-written."""
    shutil.rmtree(copied / "variants" / "half")
    (copied / "report.html").unlink()
    with monkeypatch.context() as patched:

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr("compress_rec.variant.save_file", full)
        with pytest.raises(CompressRecError) as caught:
            run(tiny_run.study, copied, quiet())
    assert str(caught.value) == (
        f"{copied / 'variants' / 'half'} could not be written: No space left on device; nothing was changed there, "
        "free some space or name another folder"
    )
    assert work == ["factorize[method=plain]"]
    assert {path.name for path in (copied / "variants").iterdir()} == {*NAMES} - {"half"}
    assert not (copied / "report.html").exists()
    assert run(tiny_run.study, copied, quiet()).report.rows == tiny_run.finished.report.rows


def test_a_report_tells_no_path_of_the_machine(tiny_run: TinyRun) -> None:
    facts = tiny_run.finished.report.extras["data"]
    assert facts["model"] == "model"
    for name in ("report.html", "report.md", "report.jsonl"):
        assert str(tiny_run.folder.parent) not in (tiny_run.folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"ndcg@5"', '"ndcg@50"', "k of the measure 'ndcg@50' is 50, but the catalogue has 24 items: choose a smaller k"),
        ("users = 120", "usres = 120", "[data] has no option 'usres'; did you mean 'users'? known are "),
        ('path = "', 'path = "/nowhere', " is no folder: a saved variant or a Hugging Face model was wanted; check the path"),
    ],
)
def test_bad_input_is_refused_before_any_long_work(
    tmp_path: Path, old: str, new: str, sentence: str, work: list[Any], tiny_run: TinyRun
) -> None:
    study = tmp_path / "bad.toml"
    study.write_text(tiny_run.study.read_text().replace(old, new))
    with pytest.raises(CompressRecError) as caught:
        run(study, tmp_path / "run", quiet())
    assert sentence in str(caught.value)
    assert work == []
    assert not (tmp_path / "run" / "variants").exists()


def test_recipes_learn_from_nothing_that_is_held_out(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Texts of cold items and held-out events are no training texts."""
    from compress_rec.state import State
    from compress_rec.study import read as read_study

    bench = stations.Bench(read_study(tiny_run.study), tmp_path, State(tmp_path / "state"), quiet(), PartialState(cpu=True))
    found = stations.data(bench)
    texts = training_texts(found, 10_000, 3, seed=0)
    cold = {found.catalogue.texts[item] for item in torch.nonzero(found.catalogue.cold)[:, 0].tolist()}
    assert cold
    assert not cold & set(texts["item"])
    assert not any(title in text for title in cold for text in texts["text"])
    # every history text ends before the last training event: with it, or the validation, none is made
    allowed = {text for user in found.split.train for text in _stretches(found, user)}
    assert set(texts["text"]) <= allowed


def _stretches(found: stations.Data, user: Any) -> list[str]:
    return found.catalogue.history_texts([user[:end].tolist() for end in range(1, len(user))], 3)


def test_without_fine_tuning_the_model_is_measured_as_it_came(tmp_path: Path) -> None:
    study = write_study(tmp_path, "", '"overlap@5"', {"[fit]": "[fit]\nfine_tune = false", ', variants = ["int8"]': ""})
    for _ in range(2):
        finished = run(study, tmp_path / "run", quiet())
        made, given = Variant.load(tmp_path / "run" / "variants" / "reference"), Variant.load(tmp_path / "model")
        assert torch.equal(made.encode(["red song guitar music"]), given.encode(["red song guitar music"]))
    assert set(finished.report.cells["reference", "overlap@5"].samples.defined) == {1.0}  # type: ignore[union-attr]


def test_two_processes_fit_together_and_one_writes(tmp_path: Path) -> None:
    """What `accelerate launch` does, through torch's own launcher: one run folder, one report, no process left behind."""
    study = write_study(tmp_path, changes={"static_average = false": "static_average = true"})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "compress_rec", "study"]
    environment = {**os.environ, "PYTHONPATH": ".", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    whole = [*command, str(study), "--out", str(tmp_path / "run")]
    done = subprocess.run(whole, cwd=Path(__file__).parent.parent, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    report = read(tmp_path / "run" / "report.jsonl")
    assert "static average" in report.variants
    assert {row.failure for row in report.rows if row.variant == "static average"} == {None}
    assert done.stdout.count("The report is in") == 1
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.is_dir()], "something was left half-written"
