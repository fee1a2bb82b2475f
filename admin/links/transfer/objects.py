"""Objects: from the bytes of a JSON document to the links in it, one at a time.

A document may be an array of links, an answer of an API, or several of either, one behind the other. What else it holds
is passed over. Where it is no JSON any more, nobody can say what comes after: what was read until then is good.
"""

import io
from collections.abc import Iterator
from typing import Any

import ijson
import orjson
from ijson.common import JSONError

from admin.links.transfer.rows import Record
from admin.links.transfer.texts import MAX_LINE_BYTES, Line
from admin.links.transfer.values import MAX_DEPTH, TOO_DEEP, flaw_of

_ARRAY = "[]"
_PLACES = {
    (_ARRAY,),  # Dub, Rebrandly, dumps
    ("links", _ARRAY),  # Bitly, Short.io, Sink
    ("data", _ARRAY),  # Kutt, Linkwire
    ("result", _ARRAY),  # YOURLS with the plugin for Shlink
    ("shortUrls", "data", _ARRAY),  # Shlink
}
# Between strings these are blanks; within, JSON has only escapes of them, but Bitly sends them bare.
_CONTROLS = bytes(range(0x20))
_BLANKED = bytes.maketrans(_CONTROLS, b" " * len(_CONTROLS))
_NUL = b"\\u0000"


class _Flaw(Exception):
    """Why the rest of a document is not read."""


class _Measured:
    """A file that is read no further than one link may reach."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._since_link = 0
        self._tail = b""
        self.may_have_nul = False
        """Whether one was there, written as an escape, or what looks like it."""

    def read(self, size: int = -1) -> bytes:
        """Some bytes, or none at the end. Raises `_Flaw`."""
        if self._since_link > MAX_LINE_BYTES:
            raise _Flaw(f"It has more than {MAX_LINE_BYTES} bytes.")
        content = self._stream.read(size)
        self._since_link += len(content)
        self.may_have_nul = self.may_have_nul or _NUL in self._tail + content
        self._tail = content[-len(_NUL) :]
        return content.translate(_BLANKED)

    def link_ends(self) -> None:
        """The next one may be as long again."""
        self._since_link = 0


def objects_of(stream: io.BufferedReader) -> Iterator[Record]:
    """The objects in the places where links are, and at last a flaw if the document has one."""
    measured = _Measured(stream)
    events = ijson.basic_parse(measured, multiple_values=True, use_float=True)
    number = 0
    try:
        for _ in _places(events):
            found = _built(events)
            measured.link_ends()
            number += 1
            yield _record(number, found, may_have_flaw=measured.may_have_nul)
    except _Flaw as error:
        yield Record(number + 1, {}, f"{error} The rest of the file is not read.")
    except (JSONError, UnicodeDecodeError) as error:
        yield Record(number + 1, {}, f"Here the JSON is damaged ({_told(error)}). The rest of the file is not read.")


def _told(error: JSONError | UnicodeDecodeError) -> str:
    """What the parser says in its first line, unless it is about bytes that are no text."""
    if isinstance(error, UnicodeDecodeError):
        return "half a character, such as \\udc00"
    said = error.args[0]
    return "not UTF-8" if isinstance(said, bytes) else str(said).splitlines()[0].rstrip(".")


def _places(events: Iterator[tuple[str, Any]]) -> Iterator[None]:
    """Stops wherever a link begins. Whoever is told takes its events."""
    where: list[str] = []  # the key that leads on from each object, and `[]` for each array
    for event, value in events:
        if event == "map_key":
            where[-1] = value
        elif event == "start_map":
            if tuple(where) in _PLACES or _is_of_yourls(where):
                yield
            else:
                where.append("")
        elif event == "start_array":
            where.append(_ARRAY)
        elif event in ("end_map", "end_array"):
            where.pop()
        if len(where) > MAX_DEPTH:
            raise _Flaw(TOO_DEEP)


def _is_of_yourls(where: list[str]) -> bool:
    return len(where) == 2 and where[0] == "links" and where[1].startswith("link_")


def _built(events: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """The object whose begin was the last event."""
    top: dict[str, Any] = {}
    inner: list[Any] = [top]
    keys: list[str] = [""]
    for event, value in events:
        if event == "map_key":
            keys[-1] = value
            continue
        if event in ("end_map", "end_array"):
            inner.pop()
            keys.pop()
            if not inner:
                return top
            continue
        new = {} if event == "start_map" else [] if event == "start_array" else value
        if isinstance(inner[-1], list):
            inner[-1].append(new)
        else:
            inner[-1][keys[-1]] = new
        if event in ("start_map", "start_array"):
            inner.append(new)
            keys.append("")
            if len(inner) > MAX_DEPTH:
                raise _Flaw(TOO_DEEP)
    raise AssertionError("the parser has told of an object's end")


def objects_of_lines(lines: Iterator[Line]) -> Iterator[Record]:
    """The object of each line (JSON Lines); blank lines are passed over."""
    for line in lines:
        if line.flaw:
            yield Record(line.number, {}, line.flaw)
        elif not line.text.isspace():
            yield _object_of(line.number, line.text.encode())


def _object_of(number: int, text: bytes) -> Record:
    try:
        found = orjson.loads(text.translate(_BLANKED))
    except orjson.JSONDecodeError as error:
        return Record(number, {}, f"It is not JSON ({error.msg}, character {error.pos + 1}).")
    if not isinstance(found, dict):
        return Record(number, {}, "It is not a JSON object.")
    return _record(number, found, may_have_flaw=_NUL in text or text.count(b"{") + text.count(b"[") > MAX_DEPTH)


def _record(number: int, found: dict[str, Any], *, may_have_flaw: bool) -> Record:
    flaw = flaw_of(found) if may_have_flaw else ""
    return Record(number, {} if flaw else found, flaw)
