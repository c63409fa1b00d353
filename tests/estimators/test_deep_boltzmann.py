"""DeepBoltzmannMachine: sums over all states, bounds, digits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skebm import DeepBoltzmannMachine
from skebm.exceptions import DataDomainError
from skebm.objectives import DeepBoltzmannLikelihood
from skebm.partition import AnnealedGibbs, Enumeration, LayerSum
from tests.energies.machines import bits


def stripes(n, rng):
    """Return n rows of 6 bits: 2 x 3 pixels, each column of pixels on or off."""
    on = rng.random((n, 3)) < 0.5
    rows = np.hstack([on, on]) ^ (rng.random((n, 6)) < 0.05)
    return rows.astype(float)


@pytest.fixture(scope="module")
def rows():
    return stripes(600, np.random.default_rng(0))


@pytest.fixture(scope="module")
def fitted(rows):
    return DeepBoltzmannMachine(
        (5, 4), learning_rate=1.0, n_iter=200, random_state=0
    ).fit(rows)


def test_score_of_a_small_machine_is_exact_and_the_bound_is_below_it(fitted, rows):
    machine, v = fitted.energy_, bits(6).numpy()
    log_z = Enumeration()(machine, n_features=6).value
    assert not fitted.is_bound_
    assert fitted.log_partition_ == pytest.approx(log_z, abs=1e-6)
    assert np.exp(fitted.score_samples(v)).sum() == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        bound = -machine.variational(bits(6)).numpy() - log_z
    assert (bound <= fitted.score_samples(v) + 1e-5).all()


def test_stripes_are_learned(fitted, rows):
    """Test rows are scored as by the law itself, counted from many rows."""
    test = stripes(2000, np.random.default_rng(1))
    v, counts = np.unique(
        stripes(200_000, np.random.default_rng(2)), axis=0, return_counts=True
    )
    truth = dict(zip(map(bytes, v), np.log(counts / counts.sum()), strict=True))
    best = np.mean([truth.get(bytes(row), -12.0) for row in test])
    assert best - 0.1 < fitted.score(test) < best + 0.02


def test_annealing_is_within_a_tenth_of_a_nat(fitted, rows):
    annealed = DeepBoltzmannMachine(
        (5, 4), learning_rate=1.0, n_iter=200, normalizer="annealing", random_state=0
    ).fit(rows)
    assert annealed.log_partition_ == pytest.approx(fitted.log_partition_, abs=0.1)
    low, high = annealed.log_partition_interval_
    assert low < fitted.log_partition_ < high
    assert annealed.log_partition_ess_ < np.inf


def test_wide_layers_are_scored_by_a_bound(rows):
    wide = DeepBoltzmannMachine((12, 11), n_iter=20, random_state=0).fit(rows)
    assert wide.is_bound_
    with torch.no_grad():
        exact = -wide.energy_.marginal(bits(6)).numpy() - wide.log_partition_
    assert np.exp(exact).sum() == pytest.approx(1.0, abs=1e-6)
    assert (wide.score_samples(bits(6).numpy()) <= exact + 1e-5).all()


def conditional_means(fitted, row):
    """Return E[v | observed] by a sum over all rows."""
    v = bits(len(row)).numpy()
    v = v[(np.isnan(row) | (v == row)).all(1)]
    p = np.exp(fitted.score_samples(v))
    return p @ v / p.sum()


def test_draws_and_imputation_have_the_conditional_law(fitted):
    free = fitted.sample(5000)
    expected = conditional_means(fitted, np.full(6, np.nan))
    np.testing.assert_allclose(free.mean(0), expected, atol=0.03)
    row = np.array([1.0, np.nan, 0.0, np.nan, np.nan, np.nan])
    expected = conditional_means(fitted, row)
    drawn = fitted.sample(5000, given={0: 1, 2: 0})
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.03)
    filled = fitted.impute(np.tile(row, (200, 1)))
    np.testing.assert_allclose(filled.mean(0), expected, atol=0.03)
    np.testing.assert_array_equal(fitted.impute(drawn[:5]), drawn[:5])


def test_weights_and_features_are_those_of_the_layers(fitted, rows):
    assert [w.shape for w in fitted.coefs_] == [(6, 5), (5, 4)]
    assert [b.shape for b in fitted.intercepts_] == [(6,), (5,), (4,)]
    features = fitted.transform(rows)
    assert features.shape == (600, 4)
    assert features.min() >= 0
    assert features.max() <= 1
    assert fitted.transform(rows.astype(np.float32)).dtype == np.float32
    assert list(fitted.get_feature_names_out()) == [
        f"deepboltzmannmachine{i}" for i in range(4)
    ]
    # The mean field is a fixed point of the conditionals.
    (low, high), (_, middle, top) = fitted.coefs_, fitted.intercepts_
    h1 = 1 / (1 + np.exp(-rows @ low - features @ high.T - middle))
    np.testing.assert_allclose(1 / (1 + np.exp(-h1 @ high - top)), features, atol=1e-4)


def test_chains_of_a_diagnosis_mix(rows):
    table = DeepBoltzmannMachine((5, 4), n_iter=20, random_state=0).fit(rows).diagnose()
    assert len(table) == 6 + 4 + 1
    assert table["rhat"].max() < 1.1
    assert table["energy_gap"].isna().all()
    assert table["mean"].iloc[:6].to_numpy() == pytest.approx([0.5] * 6, abs=0.1)


@pytest.mark.parametrize("sizes", [4, [4], (4, 3, 2), np.array([3, 2])])
def test_any_number_of_layers(rows, sizes):
    fitted = DeepBoltzmannMachine(sizes, n_iter=5, random_state=0).fit(rows[:50])
    widths = np.atleast_1d(sizes)
    assert len(fitted.coefs_) == len(widths)
    assert fitted.transform(rows[:3]).shape == (3, widths[-1])
    assert np.exp(fitted.score_samples(bits(6).numpy())).sum() == pytest.approx(
        1.0, abs=1e-5
    )
    assert fitted.sample(4).shape == (4, 6)


def test_early_stopping_looks_at_the_bound(rows):
    fitted = DeepBoltzmannMachine(
        (5, 4), n_iter=60, early_stopping=True, random_state=0
    ).fit(rows)
    valid = fitted.history_["valid_loss"]
    assert len(fitted.calibration_energy_) == 60
    assert valid.min() == pytest.approx(-fitted.score(rows), abs=0.3)


def test_objective_and_normaliser_are_values(rows):
    objective = DeepBoltzmannLikelihood(n_chains=7, centered=False)
    fitted = DeepBoltzmannMachine(
        (3, 2), objective=objective, normalizer=LayerSum(), n_iter=2
    ).fit(rows)
    assert np.isfinite(fitted.score(rows))
    coarse = DeepBoltzmannMachine(
        (3, 2), normalizer=AnnealedGibbs(32, 20), n_iter=2, random_state=0
    ).fit(rows)
    assert coarse.log_partition_ess_ < np.inf


@pytest.mark.parametrize("sizes", [(), (3, 0), (3.5, 2), 0])
def test_bad_layers_are_refused(rows, sizes):
    with pytest.raises(ValueError, match=r"hidden_layer_sizes|n_hidden"):
        DeepBoltzmannMachine(sizes).fit(rows)


def test_values_outside_are_refused(fitted, rows):
    with pytest.raises(DataDomainError, match=r"X in \[0, 1\]"):
        fitted.score_samples(2 * rows)
    with pytest.raises(ValueError, match="NaN"):
        DeepBoltzmannMachine().fit(np.where(rows == 1, np.nan, rows))


@pytest.mark.slow
def test_defaults_on_digits_beat_a_small_rbm():
    """A bound of about -17.3 against -18.1 exactly of 16 hidden bits."""
    X = (load_digits().data >= 8).astype(float)
    order = np.random.default_rng(0).permutation(len(X))
    train, test = X[order[:1437]], X[order[1437:]]
    fitted = DeepBoltzmannMachine(random_state=0).fit(train)
    low, high = fitted.log_partition_interval_
    assert fitted.is_bound_
    assert high - low < 0.3
    assert fitted.score(test) > -17.5
