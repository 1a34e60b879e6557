"""Reading a table from CSV or Parquet as columns of text, and saying in one sentence what is wrong with it."""

from __future__ import annotations

import difflib
import gzip
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet

from compress_rec.errors import CompressRecError, nearest

_SEPARATORS = (",", ";", "\t", "|")


def read_table(path: Path | str, *, separator: str = ",", encoding: str = "utf-8") -> pl.DataFrame:
    """Return every column of a CSV file (``.gz`` too) or of a Parquet file (``.parquet``, ``.pq``) as strings.

    separator, encoding: for CSV only; a separator may have several characters, as in ``"::"``
    Errors: ``CompressRecError`` for a missing, empty, undecodable or ragged file.
    """
    path = Path(path)
    if path.is_dir():
        raise CompressRecError(f"{path} is a folder, but a CSV or Parquet file was wanted: name the file in it")
    if not path.is_file():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, near, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else "correct the path in [data]"
        raise CompressRecError(f"there is no file {path.name} in {path.parent}: {hint}")
    if path.suffix.lower() in (".parquet", ".pq"):
        table = parse_parquet(path.read_bytes(), str(path))
        return table.select(as_text(table[name]) for name in table.columns)
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as fault:
            raise CompressRecError(f"{path} is not a whole gzip file ({fault}): pack it again, or give the plain file") from fault
    return parse_text(decode(raw, encoding, str(path)), separator=separator, what=str(path))


def decode(raw: bytes, encoding: str, what: str) -> str:
    """Return the text of ``raw``, without a byte order mark, or say where ``encoding`` stopped fitting."""
    try:
        text = raw.decode(encoding)
    except LookupError as fault:
        raise CompressRecError(
            f"the encoding '{encoding}' given for {what} is unknown: write a name that Python knows, such as 'utf-8', 'latin-1' or 'cp1252'"
        ) from fault
    except UnicodeDecodeError as fault:
        line = raw.count(b"\n", 0, fault.start) + 1
        raise CompressRecError(
            f"{what} is not {encoding} text: line {line} holds the bytes {raw[fault.start : fault.start + 4]!r}, no {encoding}; "
            "set encoding to the file's own, often 'latin-1' or 'cp1252'"
        ) from fault
    return text.removeprefix("\ufeff")


def parse_text(
    text: str, *, separator: str, what: str, names: Sequence[str] | None = None, quote: str | None = '"', typed_header: bool = False
) -> pl.DataFrame:
    """Return the columns of separated ``text`` as strings.

    names: the columns' names where the text has no header
    quote: ``None`` where a quotation mark is an ordinary character
    typed_header: whether the header is ``name:type``, of which the name is kept
    """
    text = text.rstrip("\r\n")
    if not text.strip():
        raise CompressRecError(f"{what} is empty, but a table with a header was wanted: give the file that holds the data")
    if len(separator.encode()) != 1:
        if not separator:
            raise CompressRecError(f"the separator given for {what} is empty: write the character between two columns, such as ',' or ';'")
        text, separator, quote = text.replace(separator, "\x1f"), "\x1f", None
    try:
        table = pl.read_csv(
            io.BytesIO(text.encode("utf-8")),
            separator=separator,
            quote_char=quote,
            has_header=names is None,
            new_columns=list(names) if names is not None else None,
            infer_schema=False,
        ).with_columns(pl.all().fill_null(""))
    except pl.exceptions.PolarsError as fault:
        reason = str(fault).strip().partition("\n")[0].rstrip(".")
        raise CompressRecError(
            f"{what} cannot be read as a table with the separator {separator!r} ({reason}): give every row the columns of the header, or "
            "set the file's own separator"
        ) from fault
    plain = [name.partition(":")[0] if typed_header else name.strip() for name in table.columns]
    return table.rename(dict(zip(table.columns, plain, strict=True))) if len(set(plain)) == len(plain) else table


def parse_parquet(raw: bytes, what: str) -> pl.DataFrame:
    """Return the table of a Parquet file's bytes, its columns as they are."""
    try:
        return pl.DataFrame(pl.from_arrow(pyarrow.parquet.read_table(pyarrow.BufferReader(raw))))
    except (OSError, ValueError, pyarrow.ArrowException, pl.exceptions.PolarsError) as fault:
        reason = str(fault).strip().partition("\n")[0].rstrip(".")
        raise CompressRecError(f"{what} cannot be read as Parquet ({reason}): write it again, or give a CSV file") from fault


def as_text(column: pl.Series) -> pl.Series:
    """Return strings with "" for null; whole floats lose their ".0", since a nullable integer column often arrives as floats."""
    if isinstance(column.dtype, pl.List | pl.Array):
        column = column.cast(pl.List(pl.String)).list.join(" ", ignore_nulls=True)
    elif column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.to_string("iso")
    elif column.dtype.is_float() and bool(
        ((column.drop_nulls().abs() < 2.0**53) & (column.drop_nulls().round() == column.drop_nulls())).all()
    ):
        column = column.cast(pl.Int64)
    elif column.dtype.is_nested() or column.dtype == pl.Binary:
        raise CompressRecError(
            f"the column '{column.name}' holds {column.dtype} values, which are neither text nor numbers: flatten it first"
        )
    return column.cast(pl.String).fill_null("")


def pick(table: pl.DataFrame, column: str, what: str, role: str, separator: str | None = None) -> pl.Series:
    """Return the column mapped to ``role``, or refuse with the nearest name, or with the separator that was probably meant."""
    if column in table.columns:
        return table[column]
    only = table.columns[0] if len(table.columns) == 1 else ""
    meant = [mark for mark in _SEPARATORS if mark != separator and mark in only]
    if separator is not None and meant:
        raise CompressRecError(
            f"{what} has a single column {only!r} when read with the separator {separator!r}, but the column '{column}' was wanted: "
            f"set separator = {max(meant, key=only.count)!r}"
        )
    raise CompressRecError(
        f"{what} has no column '{column}', which was wanted as the {role}{nearest(column, table.columns)}: name the right one"
    )


def numbers(column: pl.Series, what: str, role: str) -> np.ndarray:
    """Return a column of text as float64, finite; refuse the first row that does not parse, with its value."""
    parsed = column.str.strip_chars().cast(pl.Float64, strict=False)
    return _all_finite(parsed, column, what, f"the {role} of every event must be a number")


def times(column: pl.Series, what: str, form: str | None = None) -> np.ndarray:
    """Return a column of text as float64 seconds.

    Plain numbers are taken as they are, whatever their unit, since only their order is used; other text as ISO 8601, or by ``form``
    (``strptime``). A time without a zone counts as UTC.
    """
    stripped = column.str.strip_chars()
    if form is not None:
        wanted = f"every time must fit time_format = {form!r}"
        return _all_finite(_seconds(stripped, lambda value: datetime.strptime(value, form)), column, what, wanted)
    parsed = stripped.cast(pl.Float64, strict=False)
    if parsed.null_count() > column.len() // 2:
        dates = _seconds(stripped, datetime.fromisoformat)
        parsed = dates if dates.null_count() < parsed.null_count() else parsed
    return _all_finite(parsed, column, what, "every time must be a number of seconds or an ISO date, else set time_format")


def _seconds(column: pl.Series, read: object) -> pl.Series:
    distinct: dict[str, float | None] = {}
    for value in column.unique().to_list():
        try:
            moment = read(value)  # type: ignore[operator]
        except ValueError:
            distinct[value] = None
        else:
            distinct[value] = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return pl.Series(column.name, [distinct[value] for value in column.to_list()], dtype=pl.Float64)


def _all_finite(parsed: pl.Series, column: pl.Series, what: str, wanted: str) -> np.ndarray:
    values = parsed.fill_null(float("nan")).to_numpy().astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        more = f", and {len(wrong) - 1} more rows like it" if len(wrong) > 1 else ""
        raise CompressRecError(
            f"{what}, row {row + 1} below the header, column '{column.name}': {wanted}, but {column[row]!r} came{more}; "
            "correct or remove the row"
        )
    return values
