"""`linkwire demo`: a real web server log, replayed through a running Linkwire as its users would.

Makes a link for each of the most requested paths, follows it once per request in the log with the visitor's own agent,
referrer and address, waits until every click is counted, and compares. Uses nothing but the API and the edge.
"""

import asyncio
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from admin import first_start
from admin.settings import AdminSettings
from shared.links import MAX_PATH_LENGTH, is_reserved, normal_path

HOSTNAME = "demo.localhost"
LINKS = 200
_AT_ONCE = 32
_PATIENCE = 10
_DRAINED_WITHIN_S = 60.0
_SHOWN = 10

# The combined log format of Apache httpd and nginx; in quotes, a backslash escapes.
_LINE = re.compile(
    r'(?P<address>\S+) \S+ \S+ \[[^\]]*\] "(?P<request>(?:[^"\\]|\\.)*)" \d{3} (?:\d+|-)'
    r' "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"\s*'
)
_REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/\d(?:\.\d)?")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.))")


class CannotReplay(Exception):
    """Why there is nothing to show; one sentence for the person who asked."""


class Visit(NamedTuple):
    """One line of a log."""

    address: str
    method: str
    path: str
    """In normal form."""
    referrer: str
    agent: str


def visit_of(line: str) -> Visit | None:
    """A line in combined format; None for anything else."""
    found = _LINE.fullmatch(line)
    request = _REQUEST.fullmatch(found["request"]) if found else None
    if found is None or request is None:
        return None
    target = request["target"]
    path = (urlsplit(target).path or "/") if "://" in target.partition("?")[0] else re.split("[?#]", target)[0]
    if not path.startswith("/"):
        return None
    return Visit(
        found["address"], request["method"], normal_path(path.encode()), _text(found["referrer"]), _text(found["agent"])
    )


def _text(quoted: str) -> str:
    """What was in quotes: `-` is nothing, escapes are undone, and what no header can carry is left out."""
    if quoted == "-":
        return ""
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], quoted)
    return "".join(character for character in text if character.isprintable()).strip()


class Replay(NamedTuple):
    """What of a log is replayed, and why the rest is not."""

    visits: list[Visit]
    paths: list[str]
    """The linked paths, most requested first."""
    not_linked: int
    other_method: int
    malformed: int


def read_log(file: Path) -> Replay:
    """Choose what to replay. Raises `CannotReplay` when the file can't be read."""
    visits, other_method, malformed = [], 0, 0
    for line in _lines(file):
        visit = visit_of(line)
        if visit is None:
            malformed += 1
        elif visit.method not in ("GET", "HEAD"):
            other_method += 1
        else:
            visits.append(visit)
    requested = Counter(visit.path for visit in visits if _is_linkable(visit.path))
    paths = [path for path, _count in requested.most_common(LINKS)]
    linked = set(paths)
    replayed = [visit for visit in visits if visit.path in linked]
    return Replay(replayed, paths, len(visits) - len(replayed), other_method, malformed)


def _is_linkable(path: str) -> bool:
    return not is_reserved(path) and len(path) <= MAX_PATH_LENGTH and "%00" not in path


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        with gzip.open(file, "rb") if is_gzip else file.open("rb") as log:
            for line in log:
                if text := line.decode("utf-8", "replace").rstrip("\r\n"):
                    yield text
    except (OSError, EOFError, zlib.error) as error:
        raise CannotReplay(f"can't read {file}: {error}") from error


async def run(settings: AdminSettings, file: Path) -> bool:
    """Replay a log and print what was counted; whether every click was. Raises `CannotReplay`."""
    credentials = first_start.read(settings.home / "credentials.json")
    if credentials is None:
        raise CannotReplay(f"there are no credentials in {settings.home}; start Linkwire first: make up")
    replay = await asyncio.to_thread(read_log, file)
    if not replay.visits:
        raise CannotReplay(f"{file} holds no GET or HEAD request in combined log format")
    console = Console()
    limits = httpx2.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    api = httpx2.AsyncClient(
        base_url=credentials["adminUrl"] + "/v1",
        headers={"Authorization": f"Bearer {credentials['apiKey']}"},
        timeout=30.0,
        limits=limits,
        trust_env=False,
    )
    edge = httpx2.AsyncClient(timeout=30.0, limits=limits, trust_env=False)
    try:
        async with api, edge:
            with Progress(console=console) as progress:
                return await _Demo(api, edge, credentials["edgeUrl"], replay, progress).run(console)
    except httpx2.HTTPError as error:
        raise CannotReplay(f"Linkwire does not answer: {error or type(error).__name__}") from error


class _Demo:
    """One replay; the clients are of the API and of the edge."""

    def __init__(
        self, api: httpx2.AsyncClient, edge: httpx2.AsyncClient, edge_url: str, replay: Replay, progress: Progress
    ) -> None:
        self._api = api
        self._edge = edge
        self._edge_url = edge_url
        self._replay = replay
        self._progress = progress
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[str, TaskID] = {}

    async def run(self, console: Console) -> bool:
        ids = dict(zip(self._replay.paths, await self._each("Links", self._link, self._replay.paths), strict=True))
        before, classes_before = await self._counts("Counts", ids), await self._classes()
        statuses = Counter(await self._each("Visits", self._follow, self._replay.visits))
        replayed = statuses.pop(302, 0)
        if statuses:
            console.print(f"[red]Unexpected answers of the edge: {dict(statuses)}")
        after = await self._drained(ids, before, replayed)
        classes = await self._classes() - classes_before
        self._progress.stop()
        gained = {
            path: {name: after[path][name] - before[path][name] for name in ("total", "humans", "bots")} for path in ids
        }
        counted = sum(counts["total"] for counts in gained.values())
        console.print(_table(gained))
        console.print(_class_table(classes))
        console.print("Replayed in seconds instead of days, many who came back count as repeats.")
        console.print(
            f"Not replayed: {self._replay.not_linked} not linked, {self._replay.other_method} other method, "
            f"{self._replay.malformed} malformed."
        )
        is_equal = replayed == counted and not statuses
        sign = "=" if replayed == counted else "≠"
        console.print(f"[{'green' if is_equal else 'red'}]replayed = {replayed} {sign} {counted} = counted")
        return is_equal

    async def _each(self, title: str, work: Any, items: list[Any]) -> list[Any]:
        """Do the work for each item, a few at once, with a bar."""
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title)
        task = self._tasks[title]
        self._progress.reset(task, total=len(items))

        async def one(item: Any) -> Any:
            async with self._at_once:
                done = await work(item)
            self._progress.advance(task)
            return done

        return list(await asyncio.gather(*[one(item) for item in items]))

    async def _link(self, path: str) -> str:
        """The id of the link at a path, made if it is new."""
        wanted = {"hostname": HOSTNAME, "path": path}
        made = await self._ask("POST", "/links", json={**wanted, "destination": f"https://example.com{path}"})
        if made.status_code == 409:
            found = await self._ask("GET", "/links", params=wanted)
            return str(found.json()["data"][0]["id"])
        return str(made.json()["data"]["id"])

    async def _ask(self, method: str, path: str, **sent: Any) -> httpx2.Response:
        """The API's answer; asked again when it is too busy to give one."""
        for _ in range(_PATIENCE):
            answer = await self._api.request(method, path, **sent)
            if answer.status_code != 503:
                break
            await asyncio.sleep(int(answer.headers.get("retry-after", 1)))
        if answer.status_code != 409:
            answer.raise_for_status()
        return answer

    async def _follow(self, visit: Visit) -> int:
        headers = {
            "host": HOSTNAME,
            "x-forwarded-for": visit.address,
            "user-agent": visit.agent,
            "referer": visit.referrer,
        }
        sent = [(name.encode(), value.encode()) for name, value in headers.items() if value]
        # Built without the client, which would add an agent of its own where the visitor had none.
        request = httpx2.Request(visit.method, self._edge_url + visit.path, headers=httpx2.Headers(sent))
        return (await self._edge.send(request)).status_code

    async def _counts(self, title: str, ids: dict[str, str]) -> dict[str, dict[str, int]]:
        async def of(link_id: str) -> dict[str, int]:
            stats = await self._ask("GET", f"/links/{link_id}/stats")
            return dict(stats.json()["data"])

        return dict(zip(ids, await self._each(title, of, list(ids.values())), strict=True))

    async def _classes(self) -> Counter[str]:
        """How many clicks of the last days the host has in each class."""
        asked = {"by": "class", "class": "all", "domain": HOSTNAME}
        answer = await self._ask("GET", "/stats/breakdown", params=asked)
        return Counter({item["value"]: item["total"] for item in answer.json()["data"]["items"]})

    async def _drained(
        self, ids: dict[str, str], before: dict[str, dict[str, int]], replayed: int
    ) -> dict[str, dict[str, int]]:
        """The counts once they have gained what was replayed, or when they have stood still for too long."""
        wanted = sum(counts["total"] for counts in before.values()) + replayed
        deadline = asyncio.get_running_loop().time() + _DRAINED_WITHIN_S
        while True:
            after = await self._counts("Counts again", ids)
            if sum(counts["total"] for counts in after.values()) >= wanted:
                return after
            if asyncio.get_running_loop().time() > deadline:
                return after
            await asyncio.sleep(0.5)


def _table(gained: dict[str, dict[str, int]]) -> Table:
    table = Table(title=f"Most clicked on {HOSTNAME}")
    table.add_column("path", overflow="fold")
    for name in ("clicks", "humans", "bots"):
        table.add_column(name, justify="right")
    ranked = sorted(gained.items(), key=lambda item: (-item[1]["total"], item[0]))
    for path, counts in ranked[:_SHOWN]:
        table.add_row(path, str(counts["total"]), str(counts["humans"]), str(counts["bots"]))
    return table


def _class_table(classes: Counter[str]) -> Table:
    table = Table(title="What they were")
    table.add_column("class")
    table.add_column("clicks", justify="right")
    for name, count in classes.most_common():
        table.add_row(name, str(count))
    return table
