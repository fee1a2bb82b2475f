"""Memory: the links that a worker remembers, bounded, and quick to ask.

Two generations: what is asked for is in the young one or moves there; when that has grown to half of the bound it
becomes the old one, and what nobody has asked for since the time before is forgotten, a few with each newcomer.
"""

from dataclasses import dataclass, field

from shared.links import Address, Published


@dataclass(slots=True)
class Found:
    """A link as it is remembered."""

    published: Published
    hot: tuple[bytes, int, bytes] | None = None
    """What protocol.py has prepared to answer at once: the link as the spool records it, the status and
    the end of the answer."""
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        """Known once, because every visit asks."""
        self.is_plain = self.published.entry is not None and self.published.entry.is_plain


def memory_key(address: Address) -> bytes:
    """What the address is remembered by: the bytes of a request's Host and path, where they are in normal form."""
    return f"{address.hostname}{address.path}".encode()


class Memory:
    """At most `entries` links, by `memory_key`."""

    def __init__(self, entries: int) -> None:
        self._half = entries // 2
        self.young: dict[bytes, Found] = {}
        """Asked directly by protocol.py, which reads it and leaves everything else to `get`."""
        self._old: dict[bytes, Found] = {}
        self._forgotten: dict[bytes, Found] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old) + len(self._forgotten)

    def get(self, key: bytes) -> Found | None:
        """The link with this key, if it is remembered."""
        found = self.young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, found: Found) -> None:
        """Remember a link, in place of what was there."""
        self._old.pop(key, None)
        if self._half == 0:
            return
        self.young[key] = found
        # Two at a time: letting go of fifty thousand at once would make everybody wait.
        for _ in range(min(2, len(self._forgotten))):
            self._forgotten.popitem()
        if len(self.young) >= self._half:
            self.young, self._old, self._forgotten = {}, self.young, self._old

    def pop(self, key: bytes) -> None:
        """Forget a link."""
        self.young.pop(key, None)
        self._old.pop(key, None)

    def peek(self, key: bytes) -> Found | None:
        """The link with this key, if it is remembered; nobody has asked for it."""
        return self.young.get(key) or self._old.get(key)

    def clear(self) -> None:
        """Forget everything."""
        self.young, self._old, self._forgotten = {}, {}, {}
