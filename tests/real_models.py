"""A real model, where it can be had."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from compress_rec.errors import CompressRecError
from compress_rec.known_sets import fetch


@functools.cache
def _minilm() -> Path | str:
    try:
        return fetch("minilm-l6")
    except CompressRecError as fault:
        return str(fault)


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2; skip the test, with the reason, where it neither lies here nor can be downloaded."""
    found = _minilm()
    if isinstance(found, str):
        pytest.skip(f"all-MiniLM-L6-v2 is not at hand: {found}")
    return found
