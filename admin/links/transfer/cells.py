"""Cells: from the lines of a file to the rows of its CSV (RFC 4180), which is separated by commas, semicolons or tabs.

A mistake in one row costs that row. A quote that is not closed would swallow what follows it, as far as a link may
reach: the lines behind the first are then read again, each for itself, so that no line is read more than twice.

Spreadsheets take a cell that begins like a formula for one. So our export puts an apostrophe before it, and our import
takes it away again. A text that begins with apostrophes and then like a formula gets one more, and so does an empty
one, which would be nothing at all otherwise.
"""

import csv
import re
from collections.abc import Iterator

from admin.links.transfer.rows import NotReadable, Record
from admin.links.transfer.texts import MAX_LINE_BYTES, Line

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_MAX_LINES = 10_000  # of a row; the longest text that a link has is half as long
_FORMULA = re.compile(r"'*(?:[=+\-@\t\r\n]|\Z)")

# Of a cell, which may be all of a link. It is the module's own, and nobody else here reads CSV.
csv.field_size_limit(MAX_LINE_BYTES)


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The inverse of `guarded`; what it has not made stays as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def headers_of(line: Line) -> Iterator[tuple[str, list[str]]]:
    """What the first line may mean: a delimiter, and the names of the columns. Raises `NotReadable`."""
    if line.flaw:
        raise NotReadable(f"Line {line.number}: {line.flaw}")
    for delimiter in _DELIMITERS:
        try:
            [names] = csv.reader([line.text], delimiter=delimiter, strict=True)
        except (csv.Error, ValueError):
            continue
        yield delimiter, names


class _TooLong(Exception):
    """A row does not end, or one of its lines does not."""


def rows_of(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """The rows: the line each begins in, its cells, and why it has none."""
    taken: list[Line] = []

    def texts() -> Iterator[str]:
        size = 0
        for line in lines:
            size = size + len(line.text) if taken else len(line.text)
            taken.append(line)
            if not line.text or size > MAX_LINE_BYTES or len(taken) > _MAX_LINES:
                raise _TooLong
            yield line.text

    while True:
        try:
            for cells in csv.reader(texts(), delimiter=delimiter, strict=True):
                flaw = taken[0].flaw if len(taken) == 1 else next((line.flaw for line in taken if line.flaw), "")
                yield taken[0].number, cells, flaw
                taken.clear()
            return
        except (csv.Error, _TooLong) as error:
            first, *rest = taken
            yield first.number, [], first.flaw or _flaw(error, delimiter)
            for line in rest:
                yield _alone(line, delimiter)
            taken.clear()


def _alone(line: Line, delimiter: str) -> tuple[int, list[str], str]:
    """The row that begins and ends in this line."""
    if line.flaw:
        return line.number, [], line.flaw
    try:
        [cells] = csv.reader([line.text], delimiter=delimiter, strict=True)
    except csv.Error as error:
        return line.number, [], _flaw(error, delimiter)
    return line.number, cells, ""


def _flaw(error: Exception, delimiter: str) -> str:
    if isinstance(error, _TooLong) or "unexpected end" in str(error):
        return "A quote that begins a cell of this line is not closed."
    if "expected after" in str(error):
        return f"Behind a closing quote only {_DELIMITERS[delimiter]} may follow; a quote in a cell is written twice."
    return "A cell has a carriage return, but no quotes around it."


def records_of(lines: Iterator[Line], delimiter: str, columns: list[str], *, is_guarded: bool) -> Iterator[Record]:
    """The rows below the header; blank ones are passed over."""
    for number, cells, flaw in rows_of(lines, delimiter):
        if flaw:
            yield Record(number, {}, flaw)
        elif len(cells) == len(columns) or (len(cells) < len(columns) and delimiter == "\t"):
            # Tabs at the end of a line are easily lost; nobody loses a comma.
            if any(cells):
                values = [cell or None for cell in cells]
                if is_guarded:
                    values = [unguarded(cell) if cell and cell[0] == "'" else cell for cell in values]
                yield Record(number, dict(zip(columns, values, strict=False)))
        elif any(cells):
            count = f"It has {len(cells)} cells, and the header has {len(columns)}"
            yield Record(number, {}, f"{count}: a cell with {_DELIMITERS[delimiter]} in it needs quotes around it.")
