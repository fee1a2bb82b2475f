"""Lookup: from an address to its entry, out of a bounded memory in front of Redis that the change stream keeps true.

Rules of this file:

1. Memory holds what was looked up, found or absent. Every change published in Redis is followed and applied to it.
   A host that changes is forgotten.
2. A looked-up answer is remembered only if no change of its address arrived while the lookup was in flight.
3. An absence is certain only if the published set was complete, in the same epoch, before and after the question.
   Otherwise the answer is `Unavailable`, never "not found".
4. While Redis is away or incomplete, found links stay in memory and are used; absences are forgotten.
5. Another epoch, a jump in the numbers of the changes, or numbers that went backwards: memory is emptied.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from edge.memory import Found, Memory, memory_key
from shared.entries import Entry, HostEntry
from shared.links import (
    CHANGES_COUNTER,
    CHANGES_STREAM,
    HOST_PREFIX,
    MARKER_KEY,
    MAX_PATH_LENGTH,
    Address,
    Marker,
    Published,
    PublishedHost,
    host_key,
)
from shared.redis import LOST, Redis, RedisError, epoch_now, run_id, stream_entries

log = logging.getLogger(__name__)

_P = TypeVar("_P", Published, PublishedHost)

_ABSENCES = 10_000
_HOSTS = 10_000
_CHECK_EVERY_S = 1.0
_AFTER_ERROR_S = 0.2


class Unavailable(Exception):
    """Nobody can say now whether there is a link: Redis is away, or not complete."""


class _Flight:
    """A lookup on its way; several visitors may wait for it."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.is_overtaken = False
        """A change of what is asked for arrived, so the answer may be old and is not remembered."""


class Lookup:
    """One per worker. `follow` must run for the answers to stay true.

    `redis` answers lookups, within `timeout_s`; `changes` is a client of its own, because it blocks for a second.
    """

    def __init__(self, redis: Redis, changes: Redis, *, memory_entries: int, timeout_s: float = 0.2) -> None:
        self._redis = redis
        self._changes = changes
        self._timeout_s = timeout_s
        self.memory = Memory(memory_entries)
        """The links that were found."""
        self._absent: OrderedDict[Address, None] = OrderedDict()
        self._hosts: OrderedDict[str, HostEntry] = OrderedDict()
        """The last one that was asked for at the end. One without an entry is as it is by default."""
        self._flights: dict[str, _Flight] = {}
        """By the key in Redis."""
        self._epoch: str | None = None
        """The epoch while the set is known to be complete; None otherwise."""
        self._memory_epoch: str | None = None
        """The epoch that memory belongs to, kept while the set is incomplete."""
        self._run = ""
        self._last = 0
        """The number of the last change that was applied."""
        self.hits = 0
        """How many were answered from memory by `find`."""

    @property
    def is_complete(self) -> bool:
        """Whether an absence can be certain now."""
        return self._epoch is not None

    @property
    def run(self) -> str | None:
        """The run of the Redis server, while the set is known to be complete there."""
        return self._run if self.is_complete else None

    async def find(self, address: Address) -> Entry | None:
        """The entry at an address, or None if there is certainly none. Raises `Unavailable`.

        Lookups of the same address that are in flight at once ask Redis once. What is longer than any link has is not
        even looked up, nor remembered.
        """
        if len(address.path) > MAX_PATH_LENGTH:
            return None
        if (entry := self.remembered(address)) is not None:
            return entry
        if address in self._absent:
            self.hits += 1
            return None
        asked: Entry | None = await self._once(address.key, lambda: self._ask(address))
        return asked

    def remembered(self, address: Address) -> Entry | None:
        """The entry at an address, if memory holds it."""
        found = self.memory.get(memory_key(address))
        if found is None:
            return None
        self.hits += 1
        return found.published.entry

    async def find_host(self, hostname: str) -> HostEntry:
        """The entry of a host; as it is by default if there is none, certainly or so far. Raises `Unavailable`.

        So far, because links that are back in Redis already are followed while the set is incomplete.
        """
        if (host := self._hosts.get(hostname)) is not None:
            self._hosts.move_to_end(hostname)
            return host
        asked: HostEntry = await self._once(host_key(hostname), lambda: self._ask_host(hostname))
        return asked

    async def _once(self, key: str, ask: Callable[[], Coroutine[None, None, Any]]) -> Any:
        """The answer to a question that is in flight at most once, however many visitors wait for it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(ask()))
            flight.task.add_done_callback(lambda _: self._flights.pop(key))
        # Shielded: a visitor who goes away must not take the answer from the others.
        return await asyncio.shield(flight.task)

    async def _ask(self, address: Address) -> Entry | None:
        published, is_certain = await self._value(address.key, Published.from_bytes)
        if not is_certain:
            raise Unavailable
        if not self._flights[address.key].is_overtaken:
            self._remember(address, published)
        return published.entry if published else None

    async def _ask_host(self, hostname: str) -> HostEntry:
        published, is_certain = await self._value(host_key(hostname), PublishedHost.from_bytes)
        host = (published.entry if published else None) or HostEntry()
        if is_certain and not self._flights[host_key(hostname)].is_overtaken:
            self._hosts[hostname] = host
            if len(self._hosts) > _HOSTS:
                self._hosts.popitem(last=False)
        return host

    async def _value(self, key: str, read: Callable[[bytes], _P]) -> tuple[_P | None, bool]:
        """What lives under a key of Redis, and whether that is certain. Raises `Unavailable`."""
        epoch_before = self._epoch
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await self._redis.get(key)
                published = read(value) if value is not None else None  # type: ignore[arg-type]
                if published is not None and published.entry is not None:
                    return published, True
                return None, epoch_before is not None and await epoch_now(self._redis) == epoch_before
        except ValueError as error:
            log.error("the value of %s can't be read: %s", key, error)
            raise Unavailable from error
        except (*LOST, RedisError) as error:
            raise Unavailable from error  # counted, and `follow` says once what is wrong with Redis

    def _remember(self, address: Address, published: Published | None) -> None:
        if published is not None:
            self.memory.put(memory_key(address), Found(published))
        elif self._epoch is not None:
            self._absent[address] = None
            if len(self._absent) > _ABSENCES:
                self._absent.popitem(last=False)

    async def follow(self) -> None:
        """Keep memory true, for ever: read the marker every second and every change as it is published."""
        while True:
            try:
                await self._check()
                checked_at = time.monotonic()
                while (left_s := checked_at + _CHECK_EVERY_S - time.monotonic()) > 0:
                    await self._read_changes(block_ms=max(1, int(left_s * 1000)))
            except (*LOST, RedisError, ValueError) as error:
                log.warning("can't follow the changes of links: %r", error)
                self._doubt()
                await asyncio.sleep(_AFTER_ERROR_S)

    async def _check(self) -> None:
        """Read the marker and catch up with the changes; only then is the set known to be complete."""
        reading = self._changes.pipeline(transaction=False)
        reading.get(MARKER_KEY)
        reading.info("server")
        reading.get(CHANGES_COUNTER)
        marker, info, counter = await reading.execute()
        newest = int(counter or 0)
        self._run = run_id(info)
        epoch = Marker.epoch_of(marker, self._run)
        if epoch is None:
            self._doubt()
            return
        if epoch != self._memory_epoch or newest < self._last:
            self._forget()
            self._memory_epoch, self._last = epoch, newest
        while self._last < newest:
            before = self._last
            await self._read_changes(block_ms=None)
            if self._last == before:
                log.warning("changes %d to %d are lost; memory is emptied", before + 1, newest)
                self._forget()
                self._last = newest
        self._epoch = epoch

    async def _read_changes(self, *, block_ms: int | None) -> None:
        answer = await self._changes.xread({CHANGES_STREAM: f"{self._last}-0"}, count=1000, block=block_ms)
        for entry_id, fields in stream_entries(answer):
            number = int(entry_id.partition(b"-")[0])
            if number != self._last + 1:
                log.warning("changes %d to %d are lost; memory is emptied", self._last + 1, number - 1)
                self._forget()
            try:
                self._apply(fields[b"key"].decode(), fields[b"value"])
            except (ValueError, KeyError) as error:
                log.error("change %d can't be read; memory is emptied: %r", number, error)
                self._forget()
            self._last = number

    def _apply(self, name: str, value: bytes) -> None:
        if (flight := self._flights.get(name)) is not None:
            flight.is_overtaken = True
        if name.startswith(HOST_PREFIX):
            self._hosts.pop(name.removeprefix(HOST_PREFIX), None)
            return
        address, change = Address.of_key(name), Published.from_bytes(value)
        self._absent.pop(address, None)
        key = memory_key(address)
        held = self.memory.peek(key)
        if held is not None and held.published.version <= change.version:
            self.memory.pop(key)
            if change.entry is not None:
                self.memory.put(key, Found(change))

    def _doubt(self) -> None:
        self._epoch = None
        self._absent.clear()

    def _forget(self) -> None:
        self.memory.clear()
        self._absent.clear()
        self._hosts.clear()
        for flight in self._flights.values():
            flight.is_overtaken = True
