"""Policies: how the paths of a host are compared, and what becomes of its links when that changes.

Rules of this file:

1. Paths are stored in the normal form of their host's policy. Whoever stores one holds the policy first (`held`), so
   that it is still the policy when the path is there.
2. Whoever changes a link holds its row, or keeps its host from changing (`held`, or the foreign key of a new link). A
   change of the policy holds the host, then the rows. So here, too, a higher version is a later commit per address,
   without a lock for each of what may be a million addresses.
"""

from collections.abc import Collection
from typing import NamedTuple

from admin.database import Connection
from admin.errors import AlreadyExists, Detail
from admin.links import links
from shared.entries import HostEntry
from shared.links import Address, is_reserved, path_under

_BATCH = 5_000
_NAMED = 20
_MOVABLE = 200_000
"""They are all remembered meanwhile."""


class Policy(NamedTuple):
    """How paths are compared: as on the default domain, unless told otherwise."""

    folds_case: bool = False
    """Without case."""
    keeps_slash: bool = False
    """A path with a slash at its end is another one than without."""

    def normal(self, path: str) -> str:
        """The one spelling of a path in normal form on a host with this policy."""
        return path_under(HostEntry(folds_case=self.folds_case, keeps_slash=self.keeps_slash), path.encode("ascii"))


async def held(connection: Connection, hostnames: Collection[str]) -> dict[str, Policy]:
    """The policies of these hosts, which stay as they are until this transaction ends, and so does who has the hosts.

    Hosts that nobody has are missing.
    """
    rows = await connection.fetch(
        """
        /* policies.held */
        select hostname, folds_case, keeps_slash from domains where hostname = any($1) order by hostname
           for key share""",
        list(hostnames),
    )
    return {row["hostname"]: Policy(row["folds_case"], row["keeps_slash"]) for row in rows}


async def rekey(connection: Connection, hostname: str, policy: Policy) -> list[Address]:
    """Give the links of a host, which is held for a change, the paths they have by this policy.

    Their new addresses are marked for publication. The answer is those that they left, to be marked behind the host: so
    no link is missing meanwhile. Raises `AlreadyExists` with up to 20 pairs of links that would be one.
    """
    moved: dict[str, tuple[int, str]] = {}
    refused: list[str] = []
    async for row in connection.cursor(
        "/* policies.rekey */ select id, path from links where hostname = $1 order by id for update",
        hostname,
        prefetch=_BATCH,
    ):
        path = policy.normal(row["path"])
        if path == row["path"]:
            continue
        if is_reserved(path):
            refused.append(f"{row['path']} would be {path}, which is reserved.")
        elif path in moved:
            refused.append(_one_link(moved[path][1], row["path"]))
        else:
            moved[path] = (row["id"], row["path"])
        if len(moved) > _MOVABLE:
            raise AlreadyExists(f"More than {_MOVABLE:,} links would move, which is too much for one change.")
    # What is in the normal form of a policy stays there: whoever has one of these paths now keeps it.
    taken = await _taken(connection, hostname, moved)
    refused += [_one_link(path, moved[path][1]) for path in taken]
    if refused:
        raise AlreadyExists(
            f"{len(refused)} links of this domain would share an address with another, or lose it.",
            [Detail("path", sentence) for sentence in sorted(refused)[:_NAMED]],
        )
    await _move(connection, [(link_id, path) for path, (link_id, _) in moved.items()])
    await links.mark(connection, [Address(hostname, path) for path in moved])
    return [Address(hostname, path) for _, path in moved.values()]


def _one_link(one: str, other: str) -> str:
    return f"{one} and {other} would be one link."


async def _taken(connection: Connection, hostname: str, paths: Collection[str]) -> list[str]:
    rows = await connection.fetch(
        "/* policies.taken */ select path from links where hostname = $1 and path = any($2) order by path",
        hostname,
        list(paths),
    )
    return [row["path"] for row in rows]


async def _move(connection: Connection, moved: list[tuple[int, str]]) -> None:
    await connection.execute(
        """
        /* policies.move */
        update links
           set path = moved.path, version = nextval('versions'),
               updated_at = greatest(date_trunc('milliseconds', now()), updated_at + interval '1 millisecond')
          from unnest($1::bigint[], $2::text[]) as moved (id, path)
         where links.id = moved.id""",
        [link_id for link_id, _ in moved],
        [path for _, path in moved],
    )
