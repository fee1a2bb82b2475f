"""Mail and workers: several at once, dead ones, and the worker as it is run."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from contextlib import AsyncExitStack

import asyncpg
import pytest

from admin import mail, worker
from admin.database import Connection
from admin.identity import letters
from shared.redis import Redis
from shared.settings import SettingsError
from tests.admin.conftest import founded
from tests.admin.mailbox import MAIL, SEALER, SECRET, Post, configured, pass_time, rows
from tests.conftest import Servers
from tests.shared.waiting import until


async def test_two_workers_send_each_mail_once(connection: Connection, database_url: str, post: Post) -> None:
    people = [f"person{number}@example.com" for number in range(30)]
    for person in people:
        await mail.post(connection, SEALER, MAIL._replace(recipient=person))

    async def work(connection: Connection) -> int:
        count = 0
        while done := await mail.step(connection, SEALER, configured(post.url())):
            count += done
        return count

    async with AsyncExitStack() as connected:
        workers = []
        for _ in range(2):
            workers.append(await asyncpg.connect(database_url))
            connected.push_async_callback(workers[-1].close)
        counts = await asyncio.gather(*[work(each) for each in workers])
    assert sum(counts) == 30 and min(counts) > 0
    assert Counter(received.recipients[0] for received in post.received) == Counter(people)


async def test_a_worker_passes_over_what_another_is_claiming(
    connection: Connection, database_url: str, post: Post
) -> None:
    await mail.post(connection, SEALER, MAIL)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        assert len(await mail._claim(other)) == 1
        await mail.post(connection, SEALER, MAIL._replace(recipient="bob@example.com"))
        assert await asyncio.wait_for(mail.step(connection, SEALER, configured(post.url())), 10) == 1
    await other.close()
    assert [received.recipients for received in post.received] == [["bob@example.com"]]


_SENDS = textwrap.dedent("""
    import asyncio, sys, asyncpg
    from admin import mail
    from admin.sealing import Sealer
    from admin.settings import AdminSettings
    from shared.settings import load

    async def send():
        settings = load(AdminSettings, {"LINKWIRE_SMTP_URL": sys.argv[2]})
        await mail.step(await asyncpg.connect(sys.argv[1]), Sealer(sys.argv[3]), settings)

    asyncio.run(send())
""")


async def test_what_a_killed_worker_was_at_is_sent_by_another(
    connection: Connection, database_url: str, post: Post
) -> None:
    post.silent.add(MAIL.recipient)
    await mail.post(connection, SEALER, MAIL)
    killed = subprocess.Popen([sys.executable, "-c", _SENDS, database_url, post.url(), SECRET])  # noqa: ASYNC220
    await until(post.has_read.is_set)
    assert await mail.step(connection, SEALER, configured(post.url())) == 0
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert await mail.step(connection, SEALER, configured(post.url())) == 0
    post.close()  # and what it holds of that mail is gone
    post.silent.clear()
    post.open()
    [row] = await rows(connection)
    assert 0 < row["pause_s"] <= mail._LEASE_S
    await pass_time(connection)
    assert await mail.step(connection, SEALER, configured(post.url())) == 1
    assert [received.text for received in post.received] == [MAIL.text]


def test_a_lease_is_longer_than_a_batch_may_take() -> None:
    assert mail._LEASE_S > mail._BATCH * mail._MAIL_S + mail._ANSWER_S  # the last is for saying goodbye


async def test_what_was_accepted_and_is_sent_again_can_be_told(
    connection: Connection, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mail.post(connection, SEALER, MAIL)
    await mail.post(connection, SEALER, MAIL)

    async def die(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as dying, pytest.raises(ConnectionError):
        dying.setattr(mail, "_delete", die)
        await mail.step(connection, SEALER, configured(post.url()))
    assert len(post.received) == 1
    await pass_time(connection)
    await mail.step(connection, SEALER, configured(post.url()))
    assert len(post.received) == 3
    contents = Counter(received.content for received in post.received)
    assert sorted(contents.values()) == [1, 2]
    assert len({received.message["Message-ID"] for received in post.received}) == 2


async def test_the_worker_sends_what_is_posted(
    connection: Connection, servers: Servers, database_url: str, redis: Redis, post: Post
) -> None:
    stop = asyncio.Event()
    settings = configured(post.url(), DATABASE_URL=database_url, REDIS_URL=servers.redis_url)
    working = asyncio.create_task(worker.run(settings, stop))
    try:
        for number in (1, 2):
            await mail.post(connection, SEALER, MAIL)
            await until(lambda: len(post.received) == number)  # noqa: B023
    finally:
        stop.set()
        await working


async def test_the_worker_writes_what_was_asked_for(
    connection: Connection, servers: Servers, database_url: str, redis: Redis, post: Post
) -> None:
    await founded(connection, "one")
    stop = asyncio.Event()
    settings = configured(post.url(), DATABASE_URL=database_url, REDIS_URL=servers.redis_url)
    working = asyncio.create_task(worker.run(settings, stop))
    try:
        await letters.ask_for_reset(connection, "one@example.com")
        await until(lambda: post.received)
    finally:
        stop.set()
        await working
    assert post.received[0].recipients == ["one@example.com"]


async def test_a_worker_without_a_sender_does_not_start(servers: Servers, database_url: str, redis: Redis) -> None:
    values = {"DATABASE_URL": database_url, "REDIS_URL": servers.redis_url, "LINKWIRE_MAIL_FROM": "nobody"}
    with pytest.raises(SettingsError, match="LINKWIRE_MAIL_FROM"):
        await asyncio.wait_for(worker.run(configured(**values), asyncio.Event()), 10)
