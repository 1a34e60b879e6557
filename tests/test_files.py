"""Nothing is ever half-written: a block that fails leaves the old file or folder as it was, and nothing beside it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compress_rec.errors import CompressRecError
from compress_rec.files import new_file, new_folder


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def failing(fault: BaseException) -> Iterator[None]:
    with pytest.raises(type(fault)):
        yield


def test_a_file_appears_whole_and_in_folders_that_were_not_there(tmp_path: Path) -> None:
    goal = tmp_path / "a" / "b" / "note.txt"
    with new_file(goal) as aside:
        aside.write_text("whole")
        assert not goal.exists()
        assert aside.parent == goal.parent, "a rename is atomic within one file system only"
    assert tree(tmp_path) == {"a/b/note.txt": "whole"}
    assert goal.stat().st_mode & 0o777 == 0o644


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    goal = tmp_path / "variant"
    with new_folder(goal) as aside:
        (aside / "old").write_text("1")
    with new_folder(goal) as aside:
        (aside / "new").write_text("2")
        assert tree(goal) == {"old": "1"}
    assert tree(tmp_path) == {"variant/new": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["variant"]


@pytest.mark.parametrize("fault", [RuntimeError("broke"), KeyboardInterrupt(), CompressRecError("refused")])
@pytest.mark.parametrize("there", [False, True])
def test_a_failing_block_leaves_everything_as_it_was(tmp_path: Path, fault: BaseException, there: bool) -> None:
    if there:
        (tmp_path / "file").write_text("old")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "inner").write_text("old")
    before = tree(tmp_path)
    with failing(fault), new_file(tmp_path / "file") as aside:
        aside.write_text("half")
        raise fault
    with failing(fault), new_folder(tmp_path / "folder") as aside:
        (aside / "inner").write_text("half")
        raise fault
    assert tree(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == (2 if there else 0), "nothing is left aside"


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_a_full_disk_is_one_sentence(tmp_path: Path, new: Callable[[Path], AbstractContextManager[Path]]) -> None:
    goal = tmp_path / "goal"
    with pytest.raises(CompressRecError) as caught, new(goal):
        full()
    assert str(caught.value) == (
        f"{goal} could not be written: No space left on device; nothing was changed there, free some space or name another folder"
    )
    assert not list(tmp_path.iterdir())


def test_a_full_disk_at_the_rename_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = tmp_path / "variant"
    with new_folder(goal) as aside:
        (aside / "old").write_text("1")
    replace, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            full()
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(CompressRecError, match="No space left"), new_folder(goal) as aside:
        (aside / "new").write_text("2")
    assert len(calls) == 3, "the old folder was moved away, the new one failed, the old one came back"
    assert tree(tmp_path) == {"variant/old": "1"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full to stand for a full disk")
def test_a_real_full_device_is_told_so(tmp_path: Path) -> None:
    wanted = pytest.raises(CompressRecError, match="could not be written: No space left on device")
    with wanted, new_file(tmp_path / "goal"), open("/dev/full", "w") as file:
        file.write("x" * 100_000)
    assert not list(tmp_path.iterdir())


def test_what_safetensors_says_of_a_disk_is_one_sentence_too(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match="could not be written"), new_file(tmp_path / "goal") as aside:
        save_file({"a": torch.zeros(2)}, aside / "no" / "such" / "folder")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CompressRecError, match="could not be written"), new_file(tmp_path / "file" / "below"):
        pytest.fail("the block should not have begun")
    assert tree(tmp_path) == {"file": "in the way"}
