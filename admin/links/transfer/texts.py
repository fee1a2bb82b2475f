"""Texts: from the bytes of a file to UTF-8, and to lines, in constant memory.

UTF-8 is what files are, with or without a byte order mark. UTF-16 is accepted with its mark: spreadsheets write it. All
other encodings only look like text, and are refused with the line where it shows.
"""

import codecs
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from admin.links.transfer.rows import NotReadable

MAX_LINE_BYTES = 2 * 1024 * 1024
"""Of a line, or of a link. The longest link of the API is well below."""

_CHUNK = 64 * 1024
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_NO_TEXT = {
    b"PK\x03\x04": "It is a ZIP archive or a spreadsheet: unpack it, or save it as CSV.",
    b"\x1f\x8b": "It is compressed: unpack it first.",
    b"%PDF": "It is a PDF.",
    b"<": "It is XML or HTML: export CSV or JSON (YOURLS: with format=json).",
}
NUL = "It must not contain the character NUL."


class Line(NamedTuple):
    """A line with its end."""

    number: int
    """From 1."""
    text: str
    flaw: str
    """Why the text is not to be trusted; empty when it is."""


def opened(file: BinaryIO) -> io.BufferedReader:
    """The file from here on as UTF-8 without a mark. Raises `NotReadable` for what is no text."""
    start = file.read(4)
    if start in _UTF_32:
        raise NotReadable("It is UTF-32: save it as UTF-8.")
    encoding = _UTF_16.get(start[:2])
    start = start[2:] if encoding else start.removeprefix(codecs.BOM_UTF8)
    stream: io.BufferedReader = io.BufferedReader(_Utf8(file, start, encoding), _CHUNK)
    head = stream.peek(1024)
    for mark, why in _NO_TEXT.items():
        if head.lstrip().startswith(mark):
            raise NotReadable(why)
    if b"\0" in head[:2]:
        raise NotReadable("It is not text, or UTF-16 without a byte order mark: save it as UTF-8.")
    return stream


def put_back(content: bytes, stream: io.BufferedReader) -> io.BufferedReader:
    """The stream as it was before this was read from it."""
    return io.BufferedReader(_Utf8(stream, content, None), _CHUNK)


class _Utf8(io.RawIOBase):
    """What is left of a file, as UTF-8. What can't be decoded becomes bytes that are no UTF-8 either."""

    def __init__(self, file: BinaryIO, start: bytes, encoding: str | None) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass") if encoding else None
        self._rest = self._decoded(start + file.read(max(0, _CHUNK - len(start))))

    def readable(self) -> bool:
        """It is for nothing else."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some bytes; 0 at the end."""
        target = memoryview(buffer).cast("B")
        if not self._rest:
            self._rest = self._next()
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _next(self) -> bytes:
        while content := self._file.read(_CHUNK):
            if decoded := self._decoded(content):
                return decoded
        if self._decoder is None:
            return b""
        half_a_character, _state = self._decoder.getstate()
        self._decoder = None
        return b"\xff" if half_a_character else b""

    def _decoded(self, content: bytes) -> bytes:
        if self._decoder is None:
            return content
        return self._decoder.decode(content).encode("utf-8", "surrogatepass")


def lines_of(stream: io.BufferedReader) -> Iterator[Line]:
    """The lines, counted. One that is too long has no text; one that is not UTF-8 has some."""
    number = 0
    while content := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(content) > MAX_LINE_BYTES:
            while content and not content.endswith(b"\n"):
                content = stream.readline(_CHUNK)
            yield Line(number, "", f"It has more than {MAX_LINE_BYTES} bytes.")
            continue
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            flaw = f"It is not UTF-8 (byte {content[error.start]:#04x}): save the file as UTF-8."
            yield Line(number, content.decode("utf-8", "replace"), flaw)
        else:
            yield Line(number, text, NUL if "\0" in text else "")
