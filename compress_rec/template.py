"""How a row of attributes becomes one text: a template such as ``"{title} ({year}) {genres}"``."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from compress_rec.errors import CompressRecError, nearest

_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}")
_SPACES = re.compile(r"\s+")
_BEFORE_MARK = re.compile(r" ([,;:.])(?= |$)")


def columns_of(template: str) -> tuple[str, ...]:
    """Return the columns that ``template`` names, each once, in order; refuse a template that cannot be read or names none."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as fault:
        raise CompressRecError(
            f"the template {template!r} cannot be read ({fault}): write the columns in braces, as in '{{title}} ({{year}}) {{genres}}'"
        ) from fault
    names = [name for _, name, _, _ in parts if name is not None]
    plain = all(name and not form and not turn for _, name, form, turn in parts if name is not None)
    if not names or not plain:
        raise CompressRecError(
            f"the template {template!r} must name at least one column and nothing but columns in its braces: "
            "write it as in '{title} ({year}) {genres}'"
        )
    return tuple(dict.fromkeys(names))


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
    names = columns_of(template)
    values = {name: clean(attributes.get(name, "")) for name in names}
    if not any(values.values()):
        return ""
    text = "".join(before + (values[name] if name is not None else "") for before, name, _, _ in string.Formatter().parse(template))
    return _BEFORE_MARK.sub(r"\1", clean(_EMPTY_BRACKETS.sub(" ", text)))


def clean(text: str) -> str:
    """Return ``text`` with every run of white space as one space and none at the ends."""
    return _SPACES.sub(" ", text).strip()
