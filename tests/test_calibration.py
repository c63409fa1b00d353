"""Decisions from energies: numbers by hand, and the laws that hold for any data."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, kstest

from skebm.calibration import (
    benjamini_hochberg,
    conformal_p_values,
    conformal_threshold,
    without_clear_anomalies,
)


def test_p_values_by_hand():
    p = conformal_p_values([0.0, 1.0, 1.5, 3.0, 9.0], [3.0, 1.0, 2.0])
    np.testing.assert_allclose(p, [1.0, 1.0, 0.75, 0.5, 0.25])


def test_ties_count_as_at_least_as_strange():
    p = conformal_p_values([1.0, 2.0, 2.1], [2.0, 2.0, 2.0, 1.0])
    np.testing.assert_allclose(p, [1.0, 0.8, 0.2])


def test_own_calibration_rows_are_left_out():
    p = conformal_p_values([3.0, 3.0], [1.0, 2.0, 3.0], own=[True, False])
    np.testing.assert_allclose(p, [1 / 3, 2 / 4])
    np.testing.assert_allclose(conformal_p_values([5.0], [5.0], own=[True]), [1.0])


def test_leave_one_out_p_values_are_ranks():
    energy = np.random.default_rng(0).normal(size=50)
    p = conformal_p_values(energy, energy, own=np.ones(50, bool))
    np.testing.assert_allclose(np.sort(p), np.arange(1, 51) / 50)
    one_by_one = [
        conformal_p_values(energy[i : i + 1], np.delete(energy, i))[0]
        for i in range(50)
    ]
    np.testing.assert_allclose(p, one_by_one)


def test_p_values_take_lists_and_leave_them_alone():
    calibration = [3, 1, 2]
    p = conformal_p_values([2], calibration)
    assert p.tolist() == [0.75]
    assert calibration == [3, 1, 2]


def test_p_values_are_uniform_under_exchangeability():
    rng = np.random.default_rng(0)
    draws = rng.gamma(2.0, size=(2000, 100))
    p = np.array([conformal_p_values(row[:1], row[1:])[0] for row in draws])
    assert kstest(p - rng.random(2000) / 100, "uniform").pvalue > 0.01
    for level in (0.05, 0.1, 0.5):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 2000)


def test_p_values_are_valid_with_ties():
    draws = np.random.default_rng(0).integers(0, 3, size=(2000, 20))
    p = np.array([conformal_p_values(row[:1], row[1:])[0] for row in draws])
    for level in (0.05, 0.3, 0.5, 0.9):
        assert (p <= level).mean() <= level + 0.03


def step_up(p, q):
    """Call the k smallest, k the last place with p_(k) <= q k / n."""
    order = np.argsort(p)
    places = np.arange(1, len(p) + 1)
    below = np.flatnonzero(np.sort(p) <= q * places / len(p))
    called = np.zeros(len(p), bool)
    called[order[: below[-1] + 1 if len(below) else 0]] = True
    return called


@pytest.mark.parametrize("q", [0.01, 0.1, 0.4])
def test_benjamini_hochberg_is_the_step_up_procedure(q):
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = np.r_[rng.random(40), rng.random(10) ** 6]
        called = benjamini_hochberg(p, q)
        np.testing.assert_array_equal(called, step_up(p, q))
        np.testing.assert_array_equal(called, false_discovery_control(p) <= q)


def test_benjamini_hochberg_by_hand():
    p = [0.04, 0.01, 0.03, 0.9]
    assert benjamini_hochberg(p, 0.05).tolist() == [False, True, False, False]
    assert benjamini_hochberg(p, 0.06).tolist() == [True, True, True, False]


@pytest.mark.parametrize("q", [0, 1, -0.1, 1.5, float("nan")])
def test_benjamini_hochberg_refuses_rates_outside_the_unit_interval(q):
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\)"):
        benjamini_hochberg([0.5], q)


@pytest.mark.parametrize(
    ("n", "rate", "place"),
    [(99, 0.05, 95), (99, 0.5, 50), (19, 0.05, 19), (18, 0.05, 18), (1, 0.05, 1),
     (20, 0.1, 19), (999, 0.01, 990), (9, 0.9, 1), (10, 0.3, 8)],
)  # fmt: skip
def test_threshold_is_the_order_statistic(n, rate, place):
    calibration = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    threshold = conformal_threshold(calibration, rate)
    assert threshold == place
    assert isinstance(threshold, float)


def test_threshold_aims_at_one_in_twenty():
    assert conformal_threshold(np.arange(1, 1000)) == 950


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("ties", [False, True])
def test_rows_beyond_the_threshold_are_those_with_small_p_values(rate, ties):
    rng = np.random.default_rng(0)
    for n in (100, 137, 500):
        energy, calibration = rng.normal(size=200), rng.normal(size=n)
        if ties:
            energy, calibration = energy.round(1), calibration.round(1)
        beyond = energy > conformal_threshold(calibration, rate)
        p = conformal_p_values(energy, calibration)
        np.testing.assert_array_equal(beyond, p <= rate + 1e-12)


def test_threshold_keeps_its_false_alarm_rate():
    draws = np.random.default_rng(0).gamma(2.0, size=(4000, 60))
    alarms = [row[0] > conformal_threshold(row[1:], 0.1) for row in draws]
    assert np.mean(alarms) == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("n", [50, 300, 5000])
def test_clean_energies_are_kept(n):
    rng = np.random.default_rng(0)
    kept = [len(without_clear_anomalies(rng.normal(size=n))) for _ in range(40)]
    assert np.mean(kept) > 0.995 * n


def test_skewed_clean_energies_are_kept():
    rng = np.random.default_rng(0)
    energies = [rng.chisquare(6, size=2000) for _ in range(20)]
    kept = [len(without_clear_anomalies(e)) for e in energies]
    assert np.mean(kept) > 0.995 * 2000


@pytest.mark.parametrize("n_planted", [1, 20, 35])
def test_planted_anomalies_are_dropped(n_planted):
    rng = np.random.default_rng(0)
    clean = rng.normal(size=400)
    planted = 12 + rng.normal(size=n_planted)
    mixed = rng.permutation(np.r_[planted, clean])
    kept = without_clear_anomalies(mixed)
    assert kept.max() < 8
    assert len(kept) >= 0.99 * 400
    assert (np.diff(kept) >= 0).all()
    assert len(mixed) == 400 + n_planted


def test_low_energies_are_never_clear_anomalies():
    e = np.r_[np.random.default_rng(0).normal(size=300), np.full(10, -50.0)]
    assert without_clear_anomalies(e)[0] == -50


def test_the_central_energies_are_always_kept():
    e = np.r_[np.zeros(70), np.linspace(1, 2, 30)]
    assert len(without_clear_anomalies(e)) >= 80
    assert len(without_clear_anomalies(np.ones(50))) == 50


def test_few_energies_are_all_kept():
    e = np.array([3.0, 1.0, 1e9])
    assert without_clear_anomalies(e).tolist() == [1.0, 3.0, 1e9]


@pytest.mark.parametrize("law", ["exponential", "gamma", "pareto", "lognormal", "t"])
def test_heavy_tails_hold_no_clear_anomalies(law):
    """Energies such as the logarithms of distances in clean heavy-tailed tables."""
    rng = np.random.default_rng(0)
    laws = {
        "exponential": lambda n: rng.exponential(size=n),
        "gamma": lambda n: rng.gamma(0.3, size=n),
        "pareto": lambda n: np.log(rng.pareto(0.5, size=n) + 1),
        "lognormal": lambda n: np.exp(0.5 * rng.normal(size=n)),
        "t": lambda n: np.log(np.abs(rng.standard_t(1, size=n)) + 0.1),
    }
    dropped = [n - len(without_clear_anomalies(laws[law](n))) for n in [300] * 50]
    assert np.mean(dropped) <= 0.002 * 300


def test_anomalies_next_to_the_tail_are_not_clear():
    """Ten in a hundred beyond the limit, but spread from the tail on: no gap."""
    e = np.r_[np.linspace(0, 1, 90), np.geomspace(1.02, 99.0, 10)]
    assert len(without_clear_anomalies(e)) == 100


def test_the_floor_of_the_limit_is_the_highest_central_energy():
    """A curve that bends down again would have a limit below the central energies."""
    central = np.r_[np.linspace(0, 1, 60), np.full(20, 1.0)]
    e = np.r_[central, np.full(20, 50.0)]
    assert without_clear_anomalies(e).max() == 1.0
    assert len(without_clear_anomalies(e)) == 80


def test_central_energies_are_never_clear_anomalies():
    """A step just below the 80th percentile: the fitted curve is flat."""
    e = np.repeat([0.0, 1.0], [795, 205])
    assert without_clear_anomalies(e).tolist() == e.tolist()


def test_discrete_energies_drop_what_lies_beyond_all_others():
    """Scores of few values, and infinite ones that were clipped: a tophat kernel."""
    counts = np.repeat(np.arange(10.0), 9)
    assert len(without_clear_anomalies(np.r_[counts, np.full(10, 1e300)])) == 90
    assert len(without_clear_anomalies(np.r_[counts, np.full(10, 17.0)])) == 100
