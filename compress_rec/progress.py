"""A bar for what takes longer than two seconds, where somebody is looking."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 2.0  # seconds


def track(items: Sequence[T], title: str) -> Iterator[T]:
    """Yield ``items`` one by one; once that has taken two seconds, show a bar on a terminal's standard error, and nothing elsewhere."""
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    bar: Progress | None = None
    task = None
    try:
        for done, item in enumerate(items):
            if bar is None and time.monotonic() - started > PATIENCE:
                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                task = bar.add_task(title, total=len(items))
            if bar is not None and task is not None:
                bar.update(task, completed=done)
            yield item
    finally:
        if bar is not None:
            bar.stop()
