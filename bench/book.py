"""The results of a run as JSON lines: the machine first, then a case a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from compress_rec.environment import facts
from compress_rec.errors import CompressRecError
from compress_rec.files import new_file

PEERS = ("faiss-cpu", "numpy", "torch", "onnxruntime", "openvino", "ctranslate2", "transformers", "threadpoolctl")
VERSION = 1


class Book:
    """Rows kept in a file that is whole at any time; without a file they are only kept.

    samples: the limits of the machine, by name, as ``limits.measure`` gives them
    """

    def __init__(self, file: Path | None, samples: Mapping[str, tuple[float, ...]]) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = [
            {"version": VERSION, "environment": facts(), "peers": {name: _version(name) for name in PEERS}, "limits": dict(samples)}
        ]

    def add(self, row: dict[str, Any]) -> None:
        """Keep a case, and write the file anew with it."""
        self.rows.append(row)
        if self.file is not None:
            with new_file(self.file) as aside:
                aside.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in self.rows), encoding="utf-8")


def read(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the machine and the cases of a file that ``Book`` wrote."""
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as fault:
        raise CompressRecError(
            f"{file} holds no results ({fault}): run pytest --benchmark bench/bench_kernels.py --results={file}"
        ) from fault
    if not rows or not isinstance(rows[0], dict) or rows[0].get("version") != VERSION:
        raise CompressRecError(f"{file} must begin with a line of version {VERSION}: run the benchmark again")
    return rows[0], rows[1:]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
