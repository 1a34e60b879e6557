"""What a user is told when something cannot be done: one sentence, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CompressRecError(ValueError):
    """A fault in what was given, not in the program.

    The message is one sentence that names the thing, what was wanted, what came and the way out. The command line prints it without a
    traceback and exits with code 2.
    """


class DiskFault(CompressRecError):
    """A file or folder could not be written: no fault of what was to be kept in it, so that whatever goes on to the next piece stops."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'? (known: …)"``, to be put behind a sentence about an unknown name."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} known are {', '.join(known)}"
