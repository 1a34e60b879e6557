"""How a row of attributes becomes one text: a template such as ``"{title} ({year}) {genres}"``."""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Mapping, Sequence

from compress_rec.errors import CompressRecError, nearest

_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}")
_BEFORE_MARK = re.compile(r" ([,;:.])(?= |$)")


def columns_of(template: str) -> tuple[str, ...]:
    """Return the columns that ``template`` names, each once, in order; refuse a template that cannot be read or names none."""
    return tuple(dict.fromkeys(name for _, name in _parts(template) if name is not None))


@functools.lru_cache(maxsize=64)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the pieces of a template: what stands before a column, and the column; a last piece may have none."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as fault:
        raise CompressRecError(
            f"the template {template!r} cannot be read ({fault}): write the columns in braces, as in '{{title}} ({{year}}) {{genres}}'"
        ) from fault
    named = [part for part in parts if part[1] is not None]
    if not named or not all(name and not form and not turn for _, name, form, turn in named):
        raise CompressRecError(
            f"the template {template!r} must name at least one column and nothing but columns in its braces: "
            "write it as in '{title} ({year}) {genres}'"
        )
    return tuple((before, name) for before, name, _, _ in parts)


def check_columns(template: str, known: Sequence[str], where: str) -> None:
    """Refuse a template that names a column which ``where`` (a plural) lack, with the nearest one."""
    for name in columns_of(template):
        if name not in known:
            raise CompressRecError(f"the template {template!r} names the column '{name}', which {where} lack{nearest(name, known)}")


def render(template: str, attributes: Mapping[str, str]) -> str:
    """Return the text of one item, cleaned; the empty string where every column that the template names is blank.

    A column that is missing or blank leaves no trace: brackets that stayed empty go, white space collapses, and no space stays before a
    mark that followed the blank column.
    """
    parts = _parts(template)
    values = {name: clean(attributes.get(name, "")) for _, name in parts if name is not None}
    if not any(values.values()):
        return ""
    text = "".join(before + (values[name] if name is not None else "") for before, name in parts)
    return _BEFORE_MARK.sub(r"\1", clean(_EMPTY_BRACKETS.sub(" ", text)))


def clean(text: str) -> str:
    """Return ``text`` with every run of white space as one space and none at the ends."""
    return " ".join(text.split())
