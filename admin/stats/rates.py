"""Rates: how often something came of something, and how far two rates are apart, with how much doubt.

Rules of this file:

1. An interval holds the true value with 95 % confidence, if each trial was one of its own: nineteen of twenty such
   intervals hold it. That is so for an interval that is looked at once; who looks each day until it leaves out 0 finds
   a difference where there is none.
2. Pure: no I/O, no clock.
"""

from math import sqrt
from typing import NamedTuple

CONFIDENCE = 0.95
_Z = 1.959963984540054
"""So many standard deviations around its middle hold 95 % of a normal distribution."""

LEAST_TRIALS = 100
"""Of each of two rates that are compared; with fewer, everybody would read more into the numbers than they say."""
LEAST_OUTCOMES = 10
"""Of both together."""


class Rate(NamedTuple):
    """So many outcomes of so many trials: not more than these."""

    outcomes: int
    trials: int

    @property
    def share(self) -> float | None:
        """From 0 to 1; None without a trial."""
        return self.outcomes / self.trials if self.trials else None


class Interval(NamedTuple):
    """What a value is found to be, and between which ones it really is (`CONFIDENCE`)."""

    value: float
    low: float
    high: float


def wilson(rate: Rate) -> Interval:
    """The score interval of a rate, without continuity correction. It needs a trial.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference. Journal of the American
    Statistical Association 22 (1927), 209-212.
    """
    share, trials = rate.outcomes / rate.trials, rate.trials
    middle = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    reach = _Z / (1 + _Z**2 / trials) * sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    # What arithmetic leaves over must not take an end past the share: without an outcome it is the lower end.
    return Interval(share, min(max(middle - reach, 0.0), share), max(min(middle + reach, 1.0), share))


def difference(rate: Rate, other: Rate) -> Interval:
    """How much higher `rate` is than `other`, from -1 to 1: method 10 of Newcombe. Each needs a trial.

    R. G. Newcombe, Interval estimation for the difference between independent proportions: comparison of eleven
    methods. Statistics in Medicine 17 (1998), 873-890: made of two score intervals, without continuity correction.
    Where one rate is near 0, as those of conversions are, it holds what it promises; the usual one does not.
    """
    one, two = wilson(rate), wilson(other)
    value = one.value - two.value
    below = sqrt((one.value - one.low) ** 2 + (two.high - two.value) ** 2)
    above = sqrt((one.high - one.value) ** 2 + (two.value - two.low) ** 2)
    return Interval(value, max(value - below, -1.0), min(value + above, 1.0))


def too_early(rate: Rate, other: Rate) -> str | None:
    """Why nobody should compare these two yet, as a sentence that names `LEAST_TRIALS` or `LEAST_OUTCOMES`; or None."""
    if (fewest := min(rate.trials, other.trials)) < LEAST_TRIALS:
        return f"One of two that are compared has {fewest} of the {LEAST_TRIALS} trials that each needs."
    if (outcomes := rate.outcomes + other.outcomes) < LEAST_OUTCOMES:
        return f"Two that are compared have {outcomes} of the {LEAST_OUTCOMES} outcomes that they need together."
    return None
