"""Candidates: what of a file could become links, as far as nobody has to be asked. Pure; it runs in a thread.

A file is dealt with in batches, each small enough for one transaction, and for memory. How far a file has been read is
counted in what its reader tells (a row, or why there is none), which is the same each time it is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from admin.errors import Invalid
from admin.http.bodies import validated
from admin.links.fields import NewLink
from admin.links.transfer.reading import Reading
from admin.links.transfer.rows import Refused, Row
from admin.settings import AdminSettings

ROWS = 500
"""At most so many in a batch. Each takes a lock, of which Postgres has some thousand."""

_BATCH_BYTES = 4 * 1024 * 1024
_LONGEST_NAME = 100
_ROOT = "It is the root of a host, where no link can be. `rootUrl` of the domain says what is there."


class Note(NamedTuple):
    """What is to be said of a line, to the person whose file it is."""

    line: int
    column: str
    """As the file names it, if it is about one."""
    message: str
    is_refusal: bool = True
    """Whether there is no link for it; otherwise something of the link could not come along."""


class Candidate(NamedTuple):
    """A link that somebody may have if nothing that is there speaks against it."""

    line: int
    new: NewLink
    historic_clicks: int
    public_id: str
    """Of the link that was exported, if the file tells."""
    had_password: bool
    """Which the file does not have."""


@dataclass
class Batch:
    """Some rows of a file."""

    kind: str
    """What the file was taken for."""
    used: dict[str, str]
    """As in `Reading`, which goes on in another thread, at the end of this batch; so are those that are `ignored`."""
    ignored: list[str]
    candidates: list[Candidate] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    """Why there are no others."""
    refused: int = 0
    """Lines that can't be links; there may be several notes on one."""
    position: int = 0
    """What the reader has told until the end of this batch."""
    line: int = 0
    """The last one in it."""
    bytes_read: int = 0
    """Of the file; somewhat more than is in the batches until here."""


def batches(
    reading: Reading, settings: AdminSettings, bytes_read: Callable[[], int], *, after: int = 0
) -> Iterator[Batch]:
    """The rest of a file behind the position `after`."""
    kind = reading.format.name
    batch, before, begun_at = Batch(kind, {}, []), None, 0
    for position, found in enumerate(reading.rows(), start=1):
        is_same_line = isinstance(found, Refused) and isinstance(before, Refused) and before.line == found.line
        before = found
        if position <= after:
            continue
        batch.position, batch.line = position, found.line
        if len(batch.used) < len(reading.used) or len(batch.ignored) < len(reading.ignored):
            batch.used, batch.ignored = dict(reading.used), list(reading.ignored)
        if isinstance(found, Refused):
            batch.notes.append(Note(found.line, found.column[:_LONGEST_NAME], found.reason))
            batch.refused += not is_same_line
        else:
            _add(batch, found, settings)
        batch.bytes_read = bytes_read()
        is_full = len(batch.candidates) + len(batch.notes) >= ROWS
        if is_full or batch.bytes_read - begun_at > _BATCH_BYTES:
            yield batch
            batch, begun_at = Batch(kind, batch.used, batch.ignored), batch.bytes_read
    if batch.position:
        yield batch


def _add(batch: Batch, row: Row, settings: AdminSettings) -> None:
    try:
        batch.candidates.append(_candidate(row, settings))
    except Invalid as error:
        batch.refused += 1
        for detail in error.details:
            batch.notes.append(Note(row.line, column_of(batch.used, detail.field), detail.message))


def _candidate(row: Row, settings: AdminSettings) -> Candidate:
    """Raises `Invalid`."""
    fields = {**row.fields}  # where a link has several addresses, the next row is made of the same
    public_id, had_password = fields.pop("id", ""), fields.pop("hasPassword", False)
    fields.pop("createdAt", None)
    if fields.get("path") == "/":
        raise Invalid.of("path", _ROOT)
    return Candidate(row.line, validated(NewLink, fields, settings), row.historic_clicks, public_id, had_password)


def column_of(used: dict[str, str], name: str) -> str:
    """The column of a file that tells of this field of a link (`rules.0.destination`, too); the field if none does."""
    wanted = name.partition(".")[0]
    return next((column[:_LONGEST_NAME] for column, fields in used.items() if wanted in fields.split(", ")), name)
