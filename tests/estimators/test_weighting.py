"""Weights are numbers of rows."""

import numpy as np
import pytest
from sklearn.base import clone

from skebm import (
    BernoulliRBM,
    BoltzmannMachine,
    CategoricalRBM,
    DeepBeliefNetwork,
    DeepBoltzmannMachine,
    DeepEBM,
    GaussianRBM,
    MixedRBM,
    RBMClassifier,
)
from skebm.estimators.partial_labels import LabelledRows
from skebm.estimators.splits import holdout
from skebm.estimators.weighting import all_differ, counted, numbers_of

X = np.random.default_rng(0).normal(size=(40, 2))
WHOLE = np.random.default_rng(1).integers(0, 4, 40)
QUICK = {"max_iter": 1, "random_state": 0}


def test_whole_weights_are_numbers_of_rows():
    weighted, repeated = counted(X, WHOLE), counted(np.repeat(X, WHOLE, 0)[::-1])
    for a, b in zip(weighted, repeated, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(weighted.rows) == WHOLE.sum()
    np.testing.assert_array_equal(weighted.rows, weighted.units[weighted.unit])


def test_multiples_of_the_least_weight_are_exact():
    numbers, copies = numbers_of(np.array([0.1, 0.3, 0.2]), 30)
    assert numbers.tolist() == [1, 3, 2]
    assert copies == 1


def test_labelled_rows_repeat_as_often_as_ratios_of_weights_say():
    z = np.arange(3.0)[:, None]
    rows = LabelledRows(z, np.arange(3), np.array([2.0, 4.0, 6.0])).repeated()
    assert rows.codes.tolist() == [0, 1, 1, 2, 2, 2]
    assert rows.weights.tolist() == [2.0] * 6


def test_other_weights_become_shares_of_ten_times_as_many_rows():
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 1000)
    numbers, copies = numbers_of(weight, 10_000)
    assert numbers.sum() == 10_000
    assert copies == 10
    assert abs(numbers - 10_000 * weight / weight.sum()).max() <= 1


def test_rows_that_differ_stay_as_they_are():
    for weight in (None, np.ones(40), np.full(40, 0.3)):
        found = counted(X, weight)
        assert found.weight is None
        np.testing.assert_array_equal(found.rows, X)
        np.testing.assert_array_equal(found.places(np.array([7, 3])), [7, 3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_rows_are_found_wherever_they_are(dtype):
    rng = np.random.default_rng(0)
    for d in (1, 3, 17, 129):
        rows = rng.normal(size=(500, d)).astype(dtype)
        assert all_differ(rows)
        rows[499] = rows[rng.integers(499)]
        assert not all_differ(rows)
        assert len(counted(rows).units) == 499


def test_coarse_rows_are_observations_each():
    coarse = np.repeat(X[:3], 20, 0)
    found = counted(coarse)
    assert found.weight is None
    assert len(found.units) == 60
    weighted = counted(coarse[::2], np.full(30, 2))
    np.testing.assert_array_equal(found.rows, weighted.rows)
    assert len(weighted.units) == 60
    assert len(counted(X[:3], np.full(3, 20)).rows) == 3
    assert len(counted(X[:2], [10, 20]).rows) == 3


def test_places_of_units_are_those_of_their_rows():
    found = counted(X, WHOLE)
    places = found.places(np.array([5, 2]))
    np.testing.assert_array_equal(np.unique(found.unit[places]), [2, 5])
    assert len(places) == np.isin(found.unit, [2, 5]).sum()


def test_a_row_of_weight_two_is_the_row_twice():
    """To the last bit: energies, log Z, threshold and p-values."""
    model = DeepEBM(**QUICK)
    a = model.fit(X, sample_weight=WHOLE)
    readings = a.energy(X), a.log_partition_, a.offset_, a.p_values(X)
    b = model.fit(np.repeat(X, WHOLE, 0)[::-1])
    again = b.energy(X), b.log_partition_, b.offset_, b.p_values(X)
    for first, second in zip(readings, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_weights_move_the_density_to_the_rows_they_weigh():
    """Two Gaussians of equal numbers, one with three quarters of the weight."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(-3, 1, (150, 1)), rng.normal(3, 1, (150, 1))])
    weight = np.repeat([0.5, 1.5], 150) * rng.uniform(0.9, 1.1, 300)
    model = DeepEBM(random_state=0).fit(rows, sample_weight=weight)
    grid = np.linspace(0, 12, 2001)[:, None]
    right = np.exp(model.score_samples(grid)).sum() * 12 / 2000
    assert right == pytest.approx(0.75, abs=0.03)
    # As many calibration energies as observations, so the least p-value is honest.
    assert len(model.calibration_energy_) == 300
    truth = 0.75 * np.exp(-((grid[:, 0] - 3) ** 2) / 2) + 0.25 * np.exp(
        -((grid[:, 0] + 3) ** 2) / 2
    )
    density = truth / np.sqrt(2 * np.pi)
    gap = density * (np.log(density) - model.score_samples(grid))
    assert gap.sum() * 12 / 2000 < 0.05


@pytest.mark.parametrize("weight", [-np.ones(40), np.zeros(40), np.full(40, np.nan)])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(ValueError, match=r"[Ww]eight|sample_weight"):
        DeepEBM(**QUICK).fit(X, sample_weight=weight)


BITS = np.random.default_rng(2).integers(0, 2, (60, 5)).astype(float)
BIT_WEIGHT = np.random.default_rng(3).integers(0, 4, 60)
MACHINES = [
    BernoulliRBM(3, n_iter=3),
    BernoulliRBM(3, n_iter=3, early_stopping=True),
    GaussianRBM(3, n_iter=3),
    CategoricalRBM(3, n_iter=3),
    MixedRBM(3, n_iter=3),
    MixedRBM(3, n_iter=3, kinds={0: "real", 1: "real"}),
    BoltzmannMachine(n_iter=3),
    DeepBoltzmannMachine((3, 2), n_iter=3),
    DeepBeliefNetwork((3, 2), n_iter=3),
]


@pytest.mark.parametrize("model", MACHINES, ids=lambda m: type(m).__name__)
def test_a_machine_takes_weights_for_numbers_of_rows(model):
    model.set_params(random_state=0)
    once = model.fit(BITS, sample_weight=BIT_WEIGHT).score_samples(BITS)
    offset = model.offset_
    often = model.fit(np.repeat(BITS, BIT_WEIGHT, 0)[::-1]).score_samples(BITS)
    np.testing.assert_allclose(once, often, rtol=1e-6)
    assert offset == pytest.approx(model.offset_, rel=1e-6)


@pytest.mark.parametrize("model", [GaussianRBM(2, n_iter=3), MixedRBM(2, n_iter=3)])
def test_weights_count_where_columns_are_scaled(model):
    rows = np.random.default_rng(0).normal(size=(200, 2))
    weight = np.exp(rows[:, 0])
    model.set_params(random_state=0).fit(rows, sample_weight=weight)
    mean = np.average(rows, axis=0, weights=weight)
    np.testing.assert_allclose(model.location_, mean, atol=0.02)
    spread = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight))
    np.testing.assert_allclose(model.scale_, spread, rtol=0.02)


def test_copies_that_stand_for_shares_are_held_out_together():
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 60)
    table = counted(BITS, weight, together=False)
    train, held_out = holdout(table, 0.2, 0)
    assert table.copies == 10
    assert not set(table.unit[train]) & set(table.unit[held_out])
    assert len(train) + len(held_out) == len(table.rows)


def test_equal_rows_of_bits_are_held_out_apart():
    table = counted(BITS, together=False)
    train, held_out = holdout(table, 0.2, 0)
    assert len(held_out) == round(0.2 * len(BITS))
    both = set(map(tuple, table.rows[train])) & set(map(tuple, table.rows[held_out]))
    assert both


def test_no_category_is_learned_from_a_row_of_no_weight():
    codes = np.random.default_rng(0).integers(0, 3, (30, 1))
    codes[7] = 9
    weight = np.ones(30)
    weight[7] = 0
    model = CategoricalRBM(2, n_iter=1, random_state=0)
    model.fit(codes, sample_weight=weight)
    assert model.categories_[0].tolist() == [0, 1, 2]


def test_weights_move_a_machine_to_the_law_they_say():
    """One bit, three quarters of the weight on ones, in weights that are not whole."""
    rng = np.random.default_rng(0)
    rows = np.repeat([[0.0], [1.0]], 200, axis=0)
    weight = np.repeat([0.5, 1.5], 200) * rng.uniform(0.9, 1.1, 400)
    rbm = BernoulliRBM(1, n_iter=300, random_state=0).fit(rows, sample_weight=weight)
    share = weight[200:].sum() / weight.sum()
    assert np.exp(rbm.score_samples([[1.0]]))[0] == pytest.approx(share, abs=0.03)


def test_weights_of_labelled_rows_are_numbers_of_rows():
    y = np.array(["a", "b", "c"])[np.arange(60) % 3]
    weight = BIT_WEIGHT * (y != "c")
    model = RBMClassifier(4, max_iter=3, random_state=0)
    once = model.fit(BITS, y, sample_weight=weight).predict_proba(BITS)
    assert model.classes_.tolist() == ["a", "b"]
    repeated = np.repeat(np.arange(60), weight)[::-1]
    often = model.fit(BITS[repeated], y[repeated]).predict_proba(BITS)
    np.testing.assert_array_equal(once, often)
    with pytest.raises(ValueError, match="Got the label 'a' in every row"):
        model.fit(BITS, y, sample_weight=y == "a")


@pytest.mark.parametrize("factor", [2.5, 0.1, 1 / 3, np.pi])
@pytest.mark.parametrize("numbers", [[1, 2, 3], [2, 3, 4], [6, 4, 9], [5, 5, 7]])
def test_ratios_of_weights_are_numbers_of_rows(numbers, factor):
    weight = np.array(numbers, dtype=float)
    found, copies = numbers_of(factor * weight, 1000)
    np.testing.assert_array_equal(found, numbers)
    assert copies == 1


def test_weights_without_a_common_unit_are_shares():
    found, copies = numbers_of(np.array([1.0, np.sqrt(2), np.pi]), 1000)
    assert copies == 10
    assert found.sum() == 30


@pytest.mark.estimators("density", "weighted")
def test_weights_of_another_size_give_the_same_model(estimator, table):
    """Equal rows add up before weights are read; no total is whole at 2.5 times it."""
    rows = table(60)
    w = 2.0 * np.random.default_rng(0).integers(1, 3, 60) + 1
    scores = [
        clone(estimator).fit(rows, sample_weight=c * w).energy(rows) for c in (1, 2.5)
    ]
    np.testing.assert_array_equal(*scores)
