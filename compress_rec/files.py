"""Writing so that nothing is ever half-written: beside the goal first, then one rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from compress_rec.errors import CompressRecError, DiskFault


@contextlib.contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` when the block ends well, remove it otherwise."""
    goal = Path(path)
    with _disk_faults(goal):
        goal.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{goal.name}.", dir=goal.parent)
        os.close(handle)
        aside = Path(name)
        aside.chmod(0o644)
    try:
        with _disk_faults(goal):
            yield aside
            os.replace(aside, goal)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes the place of ``path`` when the block ends well, and is removed otherwise."""
    goal = Path(path)
    with _disk_faults(goal):
        goal.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{goal.name}.", dir=goal.parent))
        aside.chmod(0o755)
    try:
        with _disk_faults(goal):
            yield aside
            if goal.exists():
                _swap(aside, goal)
            else:
                os.replace(aside, goal)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(aside: Path, goal: Path) -> None:
    """Put ``aside`` in the place of ``goal`` and remove what was there; where that fails, ``goal`` is as it was."""
    old = Path(tempfile.mkdtemp(prefix=f".{goal.name}.old.", dir=goal.parent))
    moved = old / goal.name
    try:
        os.replace(goal, moved)
        try:
            os.replace(aside, goal)
        except BaseException:
            os.replace(moved, goal)
            raise
    except BaseException:
        # an empty folder only: what could not be put back is never removed
        with contextlib.suppress(OSError):
            old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _disk_faults(goal: Path) -> Iterator[None]:
    try:
        yield
    except CompressRecError:
        raise
    except OSError as fault:
        raise DiskFault(
            f"{goal} could not be written: {fault.strerror or fault}; nothing was changed there, free some space or name another folder"
        ) from fault
    except Exception as fault:
        # safetensors wraps a full disk in an error of its own; everything else is passed on as it is
        if "No space left" in str(fault) or type(fault).__name__ == "SafetensorError":
            raise DiskFault(
                f"{goal} could not be written: {fault}; nothing was changed there, free some space or name another folder"
            ) from fault
        raise
