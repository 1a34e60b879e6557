"""What a run has already done: a key a piece, so that a second run does only what is new.

A piece's key is the hash of its step, its parents, the data and the package version; a piece is done when its file holds that key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import compress_rec
from compress_rec.files import new_file


def key_of(*parts: Any) -> str:
    """Return a hash of JSON values, arrays and tensors, together with the package version."""
    digest = hashlib.sha256(compress_rec.__version__.encode())
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class State:
    """The finished pieces of a run, one small JSON file each below ``folder``."""

    folder: Path

    def get(self, piece: str, key: str) -> Mapping[str, Any] | None:
        """Return what was kept of a piece with this key, ``None`` where it is not done or its key is another."""
        path = self._path(piece)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # a damaged note only means that the piece is done again
            return None
        return kept["value"] if isinstance(kept, dict) and kept.get("key") == key and "value" in kept else None

    def put(self, piece: str, key: str, value: Mapping[str, Any]) -> None:
        """Note a piece as done, with what is to be known of it: plain JSON values."""
        with new_file(self._path(piece)) as aside:
            aside.write_text(json.dumps({"key": key, "value": value}, ensure_ascii=False, allow_nan=False), encoding="utf-8")

    def _path(self, piece: str) -> Path:
        return self.folder / f"{piece}.json"
