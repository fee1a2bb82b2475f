"""Reading: from a file of links to its rows."""

import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from admin.links.transfer import cells, formats, objects, texts
from admin.links.transfer.columns import ABSENT, Column
from admin.links.transfer.formats import Format
from admin.links.transfer.rows import NotReadable, Record, Refused, Row

_MOST_IGNORED = 1000  # names of columns, of which a file of JSON could have as many as it has links
_LONGEST_NAME = 100
"""Characters of a name that is remembered: one may be as long as a link."""
_JSON_BEGINS = (b"{", b"[")
_SQL_BEGINS = ("--", "/*", "insert ", "create ", "drop ", "set ")


@dataclass
class Reading:
    """A file whose kind is known. It is read once, from the begin to the end."""

    format: Format
    records: Iterator[Record]
    used: dict[str, str] = field(default_factory=dict)
    """What became of columns: their names, and of which field of a link they tell. In JSON both grow while reading."""
    ignored: list[str] = field(default_factory=list)
    """Columns that nobody looks at."""
    _plan: list[tuple[str, Column]] = field(default_factory=list)

    def learn(self, names: list[str]) -> None:
        """Take note of columns; of two that are spelled alike, the first is looked at."""
        known = {formats.normal(name): name for name, _column in self._plan}
        for name in names:
            column = self.format.columns.get(formats.normal(name))
            if column and formats.normal(name) not in known:
                known[formats.normal(name)] = name
                self.used[name] = column.field
            elif name not in self.used and len(self.ignored) < _MOST_IGNORED:
                self.ignored.append(name[:_LONGEST_NAME])
        self._plan = [(known[name], column) for name, column in self.format.columns.items() if name in known]

    def rows(self) -> Iterator[Row | Refused]:
        """What the lines say, in their order."""
        is_empty = True
        for record in self.records:
            is_empty = False
            if record.flaw:
                yield Refused(record.line, "", record.flaw)
            else:
                yield from self._found(record)
        if is_empty and self.format.if_empty:
            yield Refused(1, "", f"There is nothing below the header. Please {self.format.if_empty}.")

    def _found(self, record: Record) -> Iterator[Row | Refused]:
        """One link, or what is wrong with it; several where it has several addresses."""
        fields: dict[str, Any] = {}
        is_right = True
        for name, column in self._plan:
            value = record.values.get(name, ABSENT)
            if value is None or (value == "" and not self.format.is_own):
                if column.empty is not ABSENT:
                    fields[column.field] = copy(column.empty)
            elif value is not ABSENT:
                try:
                    column.read(fields, value)
                except ValueError as error:
                    is_right = False
                    yield Refused(record.line, name, str(error))
        if "destination" not in fields and is_right:
            is_right = False
            yield Refused(record.line, self._name_of("destination"), "It says where no link leads.")
        if is_right:
            yield from self._rows(record.line, fields)

    def _rows(self, line: int, fields: dict[str, Any]) -> Iterator[Row]:
        others = fields.pop("others", ())
        clicks = fields.pop("historicClicks", 0)
        if "clickLimit" in fields and not self.format.is_own:
            # The limit was on all clicks; what has been used of it there can't be used again here.
            fields["clickLimit"] = max(0, fields["clickLimit"] - clicks)
        yield Row(line, fields, clicks)
        for hostname, path in others:
            yield Row(line, fields | {"hostname": hostname, "path": path}, 0)

    def _name_of(self, wanted: str) -> str:
        return next((name for name, column in self._plan if column.field == wanted), "")


def read(file: BinaryIO, source: str = "") -> Reading:
    """What a file is, by its begin; its rows are read when they are asked for.

    `file` is read from where it stands, in pieces, and never twice. With a source, one of `formats.SOURCES`, it is
    taken for nothing else. Raises `NotReadable`.
    """
    stream = texts.opened(file)
    head = stream.peek(1).lstrip()
    if not head:
        raise NotReadable("The file is empty.")
    return (_json if head.startswith(_JSON_BEGINS) else _csv)(stream, source)


def _csv(stream: io.BufferedReader, source: str) -> Reading:
    lines = texts.lines_of(stream)
    header = next((line for line in lines if line.flaw or line.text.strip()), None)
    if header is None:
        raise NotReadable("The file is empty.")
    meant = list(cells.headers_of(header))
    for delimiter, names in meant:
        if what := formats.no_links(names):
            raise NotReadable(what)
        if found := formats.recognised(names, source):
            [(name, count)] = Counter(filter(None, names)).most_common(1)
            if count > 1:
                raise NotReadable(f"The column {name[:_LONGEST_NAME]} is there twice.")
            reading = Reading(found, cells.records_of(lines, delimiter, names, is_guarded=found.is_guarded))
            reading.learn(names)
            return reading
    if header.text.lower().startswith(_SQL_BEGINS):
        raise NotReadable("It is SQL: export CSV or JSON instead.")
    names = max((names for _delimiter, names in meant), key=len, default=[])
    raise NotReadable(_unknown(names, source))


def _json(stream: io.BufferedReader, source: str) -> Reading:
    """JSON Lines if the first line is a link by itself; a document otherwise."""
    line = stream.readline(texts.MAX_LINE_BYTES)
    stream = texts.put_back(line, stream)
    has_lines = _is_link(line)
    records = objects.objects_of_lines(texts.lines_of(stream)) if has_lines else objects.objects_of(stream)
    start = next(records, None)
    if start is None:
        raise NotReadable("No links are in it: there is no list of them, or it is empty.")
    if start.flaw:
        raise NotReadable(start.flaw)
    found = formats.recognised(start.values, source)
    if found is None:
        raise NotReadable(formats.no_links(start.values) or _unknown(list(start.values), source))
    reading = Reading(found, iter(()))
    reading.records = _learned(itertools.chain([start], records), reading.learn)
    return reading


def _is_link(line: bytes) -> bool:
    """Whether a line is an object by itself that has what a link needs."""
    if not line.lstrip().startswith(b"{") or len(line) == texts.MAX_LINE_BYTES:
        return False
    try:
        return formats.recognised(orjson.loads(line)) is not None
    except orjson.JSONDecodeError:
        return False


def _learned(records: Iterator[Record], learn: Callable[[list[str]], None]) -> Iterator[Record]:
    """The same, with a note of each name when it comes for the first time, or again if there are very many."""
    known: set[str] = set()
    for record in records:
        if not record.values.keys() <= known:
            new = [name for name in record.values if name not in known]
            learn(new)
            if len(known) < _MOST_IGNORED:
                known.update(name for name in new if len(name) <= _LONGEST_NAME)
        yield record


def _unknown(names: list[str], source: str) -> str:
    shown = ", ".join(name.strip()[:40] for name in names[:20])
    who = source or ", ".join(formats.SOURCES)
    return f"These columns are not known to be of {who}: {shown}."
