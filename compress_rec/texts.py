"""A text per item and a text per history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress_rec.errors import CompressRecError
from compress_rec.template import check_columns, clean, columns_of, render

if TYPE_CHECKING:
    from compress_rec.interactions import Interactions


def item_texts(interactions: Interactions, template: str | None = None) -> tuple[str, ...]:
    """Return one cleaned text per item, in the order of their numbers.

    template: as in ``"{title} ({year}) {genres}"``; the data's own where none is given
    Errors: ``CompressRecError`` for a template that names an unknown column, and for an item whose text would be empty.
    """
    template = interactions.template if template is None else template
    known = tuple(interactions.attributes[0]) if interactions.attributes else ()
    check_columns(template, known, f"the items of {interactions.name}")
    texts = tuple(render(template, attributes) for attributes in interactions.attributes)
    for item, text in zip(interactions.items, texts, strict=True):
        if not text:
            raise CompressRecError(
                f"the item '{item}' of {interactions.name} has no text in {', '.join(columns_of(template))}: name more columns in it, "
                'or load the data with without_text = "drop"'
            )
    return texts


def history_text(oldest_first: Sequence[str], last: int = 6, separator: str = "; ") -> str:
    """Return the ``last`` texts of a history as one, most recent first, so that truncation takes the oldest.

    An empty history gives the empty string; ``last`` above the history's length takes all of it.
    """
    if last < 1:
        raise CompressRecError(f"a history text needs at least one item, but last = {last} came: set it to 1 or more")
    return separator.join(clean(text) for text in reversed(oldest_first[-last:]))
