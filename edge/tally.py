"""The tally: what a worker has done, in plain numbers, and told to Prometheus each second.

Telling it with each request would cost as much as recording the click.
"""

from dataclasses import dataclass, field

from prometheus_client import Counter

_REQUESTS = Counter("linkwire_requests", "Requests for short links, by outcome.", ["outcome"])
_REDIRECTED = _REQUESTS.labels("redirected")
_NOT_FOUND = _REQUESTS.labels("not_found")
_UNAVAILABLE = _REQUESTS.labels("unavailable")
_REFUSED = _REQUESTS.labels("refused")
_GONE = _REQUESTS.labels("gone")
_ASKED = _REQUESTS.labels("asked")
_HITS = Counter("linkwire_memory_hits", "Requests that were answered without asking Redis.")
_RECORDED = Counter("linkwire_clicks_recorded", "Clicks written to a spool.")
_DROPPED = Counter("linkwire_clicks_dropped", "Clicks that found no room in a spool.")


@dataclass(slots=True)
class Tally:
    """Numbers since the worker started."""

    redirected: int = 0
    """By redirect.py."""
    not_found: int = 0
    unavailable: int = 0
    refused: int = 0
    gone: int = 0
    """Of links that lead nowhere now, or elsewhere."""
    asked: int = 0
    """For a password, for what is shown of a link, or for what a host has beside its links."""
    hot: int = 0
    """Redirected by protocol.py."""
    _told: dict[Counter, int] = field(default_factory=dict)

    def tell(self, *, memory_hits: int, recorded: int, dropped: int) -> None:
        """Add to the metrics what is new since the last time."""
        self._tell(_REDIRECTED, self.redirected + self.hot)
        self._tell(_NOT_FOUND, self.not_found)
        self._tell(_UNAVAILABLE, self.unavailable)
        self._tell(_REFUSED, self.refused)
        self._tell(_GONE, self.gone)
        self._tell(_ASKED, self.asked)
        self._tell(_HITS, memory_hits + self.hot)
        self._tell(_RECORDED, recorded)
        self._tell(_DROPPED, dropped)

    def _tell(self, counter: Counter, number: int) -> None:
        counter.inc(number - self._told.get(counter, 0))
        self._told[counter] = number
