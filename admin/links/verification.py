"""Verification: whether a host, or its DNS, shows the proof that an organization was given.

Looking takes up to `_WITHIN_S`, and nobody is trusted: names and files are those of whoever runs the host.
"""

import asyncio
from typing import NamedTuple

import dns.exception
import dns.resolver
from dns.asyncresolver import Resolver
from dns.rdtypes.txtbase import TXTBase

from admin.errors import Detail
from admin.fetch import CannotFetch, Fetcher
from shared.links import PROOF_PATH

_WITHIN_S = 5.0
_MAX_FILE_BYTES = 1024


class Record(NamedTuple):
    """A TXT record."""

    name: str
    value: str


def record_of(hostname: str, proof: str) -> Record:
    """The TXT record that shows a proof."""
    return Record(f"_linkwire.{hostname}", f"linkwire-verification={proof}")


def file_url(hostname: str, port: int = 80) -> str:
    """Where the file is that shows a proof, which is all that it holds."""
    return f"http://{hostname}{'' if port == 80 else f':{port}'}{PROOF_PATH}"


class Seen(NamedTuple):
    """What there is to be seen of a proof."""

    method: str | None
    """How it is shown: txt, which counts more, or file."""
    missing: list[Detail]
    """Otherwise, what there is in place of it."""


class Verifier:
    """Looks for proofs. `file_port` is for tests: to the world a host is what answers on port 80."""

    def __init__(self, names: Resolver, fetcher: Fetcher, *, file_port: int = 80) -> None:
        self._names = names
        self._fetcher = fetcher
        self._file_port = file_port

    async def look(self, hostname: str, proof: str) -> Seen:
        """Whether the proof is shown. Never fails."""
        looking = self._missing_in_dns(hostname, proof), self._missing_file(hostname, proof)
        in_dns, in_file = await asyncio.gather(*looking)
        if in_dns is None:
            return Seen("txt", [])
        if in_file is None:
            return Seen("file", [])
        return Seen(None, [Detail("txt", in_dns), Detail("file", in_file)])

    async def _missing_in_dns(self, hostname: str, proof: str) -> str | None:
        """Why the TXT record does not show it; None if it does."""
        name, value = record_of(hostname, proof)
        try:
            found = await self._names.resolve(f"{name}.", "TXT")
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return f"There is no TXT record at {name}."
        except (dns.exception.DNSException, OSError):
            return f"No name server answers what is at {name}."
        # A long text comes in pieces, and some panels keep the quotes of those who type them.
        texts = [b"".join(one.strings).decode(errors="replace") for one in found if isinstance(one, TXTBase)]
        if value in [text.strip(' "') for text in texts]:
            return None
        return f"There are TXT records at {name}, but none is {value}."

    async def _missing_file(self, hostname: str, proof: str) -> str | None:
        """Why the file does not show it; None if it does."""
        url = file_url(hostname, self._file_port)
        try:
            answer = await self._fetcher.get(url, max_bytes=_MAX_FILE_BYTES, within_s=_WITHIN_S)
        except CannotFetch as error:
            return str(error)
        if answer.hostname != hostname:
            return f"{url} leads to another host."
        if answer.status != 200:
            return f"{url} answers with status {answer.status}."
        if answer.body.strip() != proof.encode():
            return f"{url} holds something else than {proof}."
        return None
