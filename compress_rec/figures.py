"""Writing a report's figures into a Markdown file, so that no number in a README is typed by hand.

``python -m compress_rec.figures README.md runs/demo/report.jsonl`` replaces what stands between ``<!-- figures:demo -->`` and
``<!-- /figures -->``; with ``--check`` nothing is written, and a difference is an error. ``--keep docs/demo`` also writes what may be
published of the report there: the rows behind the figures, without anybody's history, and the plot of speed against accuracy as a picture.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from compress_rec import markdown, picture, wording
from compress_rec.errors import CompressRecError
from compress_rec.files import new_file
from compress_rec.report import BUILD, Report, read, write

END = "<!-- /figures -->"


def block(report: Report) -> str:
    """Return what goes between the markers: what was compared, the first table, and the sentences that qualify it."""
    parts = [wording.about(report), markdown.glance(report)]
    parts += [text for text in (wording.warm_and_cold(report),) if text]
    machine = ", ".join(str(report.environment[key]) for key in ("cpu", "tier") if report.environment.get(key))
    threads = report.environment.get("threads")
    if machine:
        parts.append(f"Measured on {machine}" + (f", {threads} thread{'s' if threads != 1 else ''}." if threads is not None else "."))
    return "\n\n".join(parts)


def between_markers(text: str, body: str, name: str, where: str) -> str:
    """Return ``text`` with ``body`` in the place of what stands between the markers of ``name``."""
    start = f"<!-- figures:{name} -->"
    if text.count(start) != 1 or END not in text.partition(start)[2]:
        raise CompressRecError(f"{where} needs the lines '{start}' and '{END}' once each, in this order: put them where the figures belong")
    return re.sub(re.escape(start) + ".*?" + re.escape(END), lambda _: f"{start}\n{body}\n{END}", text, count=1, flags=re.DOTALL)


def replaced(text: str, report: Report, name: str, where: str) -> str:
    """Return ``text`` with the block called ``name`` renewed."""
    return between_markers(text, block(report), name, where)


def published(report: Report) -> Report:
    """Return what may be committed of a report: the rows of the measures in the first table, and nothing of what users did."""
    shown = {measure for title, measure in wording.headlines(report).items() if title != "Other"}
    shown |= {measure for measure in (f"{name}[user=text]" for name in shown) if measure in report.measures}
    rows = tuple(row for row in report.rows if row.measure in shown or row.measure == BUILD)
    return Report(report.environment, rows, {name: value for name, value in report.extras.items() if name != "explanations"})


def settled(file: Path, text: str, wanted: str, source: Path, check: bool) -> int:
    """Bring a file from ``text`` to ``wanted``, the figures of ``source``, or only ``check`` it: 0, or 1 where a check found others."""
    if wanted == text:
        return 0
    if check:
        print(f"{file} does not hold the figures of {source}: run the command again without --check", file=sys.stderr)
        return 1
    with new_file(file) as aside:
        aside.write_text(wanted, encoding="utf-8")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the figures; 0 when they are as the report has them, 1 when a check found others, 2 on a fault in what was given."""
    parser = argparse.ArgumentParser(prog="python -m compress_rec.figures", description="write a report's figures into a Markdown file")
    parser.add_argument("markdown", type=Path, help="the file with the markers")
    parser.add_argument("report", type=Path, help="a report.jsonl")
    parser.add_argument("--name", default="demo", help="which block: figures:NAME")
    parser.add_argument("--keep", type=Path, help="a folder for the published part of the report and its picture")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the file says something else")
    given = parser.parse_args(arguments)
    try:
        if not given.markdown.is_file():
            raise CompressRecError(f"there is no file {given.markdown}: name the Markdown file that holds the markers")
        text = given.markdown.read_text(encoding="utf-8")
        report = published(read(given.report))
        wanted = replaced(text, report, given.name, str(given.markdown))
        if given.keep is not None and not given.check:
            write(report, given.keep / "report.jsonl")
            picture.pareto(report, given.keep / "pareto.png")
        return settled(given.markdown, text, wanted, given.report, given.check)
    except CompressRecError as fault:
        print(fault, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
