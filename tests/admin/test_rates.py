"""Rates and the intervals of their differences."""

import random
from math import isclose

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from admin.stats.rates import LEAST_OUTCOMES, LEAST_TRIALS, Rate, difference, too_early, wilson

RATES = st.integers(1, 10**9).flatmap(lambda trials: st.builds(Rate, st.integers(0, trials), st.just(trials)))


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [
        (Rate(81, 263), 0.2553, 0.3662),
        (Rate(15, 148), 0.0624, 0.1605),
        (Rate(0, 20), 0, 0.1611),
        (Rate(1, 29), 0.0061, 0.1718),
    ],
)
def test_score_intervals_are_those_that_were_published(rate: Rate, low: float, high: float) -> None:
    """R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998),
    857-872, table I, method 3."""
    found = wilson(rate)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("rate", "other", "low", "high"),
    [
        (Rate(56, 70), Rate(48, 80), 0.0524, 0.3339),
        (Rate(9, 10), Rate(3, 10), 0.1705, 0.8090),
        (Rate(6, 7), Rate(2, 7), 0.0582, 0.8062),
        (Rate(5, 56), Rate(0, 29), -0.0381, 0.1926),
        (Rate(0, 10), Rate(0, 20), -0.1611, 0.2775),
        (Rate(0, 10), Rate(0, 10), -0.2775, 0.2775),
        (Rate(10, 10), Rate(0, 20), 0.6791, 1),
        (Rate(10, 10), Rate(0, 10), 0.6075, 1),
    ],
)
def test_differences_are_those_that_were_published(rate: Rate, other: Rate, low: float, high: float) -> None:
    """The paper that `difference` names, table II, method 10."""
    found = difference(rate, other)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(RATES, RATES)
def test_an_interval_is_within_bounds_around_what_was_found_and_the_same_from_the_other_side(
    rate: Rate, other: Rate
) -> None:
    assert 0 <= wilson(rate).low <= wilson(rate).value <= wilson(rate).high <= 1
    found, turned = difference(rate, other), difference(other, rate)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.value == rate.outcomes / rate.trials - other.outcomes / other.trials
    assert (turned.value, turned.low, turned.high) == (-found.value, -found.high, -found.low)


@given(RATES, RATES)
def test_outcomes_and_what_was_none_are_alike(rate: Rate, other: Rate) -> None:
    def inverse(rate: Rate) -> Rate:
        return Rate(rate.trials - rate.outcomes, rate.trials)

    found, turned = difference(rate, other), difference(inverse(rate), inverse(other))
    assert isclose(found.low, -turned.high, abs_tol=1e-9) and isclose(found.high, -turned.low, abs_tol=1e-9)


@given(st.integers(1, 10**4), st.integers(1, 10**4), st.integers(1, 10**4), st.integers(2, 100))
def test_more_of_the_same_says_it_with_less_doubt(trials: int, one: int, two: int, times: int) -> None:
    assume(one <= trials and two <= trials)
    few = difference(Rate(one, trials), Rate(two, trials))
    many = difference(Rate(one * times, trials * times), Rate(two * times, trials * times))
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(("one", "two"), [(0.02, 0.03), (0.1, 0.1), (0.5, 0.35)])
def test_of_twenty_intervals_nineteen_hold_the_truth(one: float, two: float) -> None:
    chance, rounds, trials = random.Random(7), 2000, 250
    drawn = [[sum(chance.random() < share for _ in range(trials)) for share in (one, two)] for _ in range(rounds)]
    found = [difference(Rate(first, trials), Rate(second, trials)) for first, second in drawn]
    held = sum(interval.low <= one - two <= interval.high for interval in found)
    assert 0.94 <= held / rounds <= 0.97


def test_it_is_too_early_with_few_trials_or_few_outcomes() -> None:
    enough = Rate(LEAST_OUTCOMES, LEAST_TRIALS)
    assert too_early(enough, Rate(0, LEAST_TRIALS)) is None
    assert "99 of the 100 trials" in (too_early(enough, Rate(99, LEAST_TRIALS - 1)) or "")
    assert "99 of the 100 trials" in (too_early(Rate(99, LEAST_TRIALS - 1), enough) or "")
    assert "9 of the 10 outcomes" in (too_early(Rate(4, 500), Rate(5, 10**6)) or "")


def test_without_a_trial_there_is_no_rate() -> None:
    assert Rate(0, 0).share is None
    assert Rate(1, 4).share == 0.25
