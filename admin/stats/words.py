"""Words: text that comes often, such as agents and hosts, stored once and known by a number.

Rules of this file:

1. A word is never changed or removed, so what was learned once stays true. Number 0 is the empty text: nobody knows.
2. Words are learned before the transaction that needs them: one that is undone leaves a word behind, no more.
"""

from collections.abc import Iterable, Mapping

from admin.database import Connection

_REMEMBERED = 100_000


class Words:
    """What one process has learned of them: at most so many."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    async def numbers(self, connection: Connection, texts: Iterable[str]) -> Mapping[str, int]:
        """The numbers of these texts, which get one where they have none. No text has a NUL. Not in a transaction."""
        wanted = set(texts)
        if len(self._numbers) + len(wanted) > _REMEMBERED:
            self._numbers = {"": 0}
        if unknown := sorted(wanted - self._numbers.keys()):
            # In an order, so that two who learn the same words don't wait for each other in a circle.
            rows = await connection.fetch(
                """
                /* words.numbers */
                with wanted as (select unnest($1::text[]) as text),
                     new as (
                         insert into words (text)
                         select text from wanted where text not in (select text from words where text = any($1))
                          order by text
                         on conflict do nothing
                         returning id, text)
                select id, text from new union all select id, text from words where text = any($1)""",
                unknown,
            )
            self._numbers |= {row["text"]: row["id"] for row in rows}
            if missing := [
                text for text in unknown if text not in self._numbers
            ]:  # somebody else has just learned them
                rows = await connection.fetch(
                    "/* words.numbers */ select id, text from words where text = any($1)", missing
                )
                self._numbers |= {row["text"]: row["id"] for row in rows}
        return self._numbers


async def texts(connection: Connection, numbers: Iterable[int]) -> dict[int, str]:
    """What these numbers stand for."""
    rows = await connection.fetch(
        "/* words.texts */ select id, text from words where id = any($1::integer[])", list(numbers)
    )
    return {0: ""} | {row["id"]: row["text"] for row in rows}
