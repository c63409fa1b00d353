"""P-values of densities on clean new rows: training saw none that calibrate."""

import numpy as np
import pytest

import skebm
from skebm.estimators import rbm_training
from skebm.estimators.cross_fitting import best_epoch

N, N_NEW, SEEDS = 100, 2000, range(3)

# The 5% quantile of 100 ranks has sd .0217, the mean over 3 tables .0125; 2.4 of these.
SLACK = 0.03


def gaussian(rng, n):
    return rng.normal(size=(n, 8))


def levels(rng, n):
    return rng.integers(0, 3, size=(n, 8)).astype(float)


def bits(rng, n):
    return rng.integers(0, 2, size=(n, 12)).astype(float)


SHORT = {"n_components": 6, "n_iter": 40}
LONG = {"n_components": 8, "n_iter": 300}
DEEP = {"hidden_layer_sizes": (6, 4), "n_iter": 150}

CASES = {
    "levels": (skebm.CategoricalRBM, SHORT, levels),
    "pairs": (skebm.BoltzmannMachine, {"n_iter": 60}, bits),
}

SLOW_CASES = {
    "gaussian": (skebm.GaussianRBM, LONG, gaussian),
    "mixed": (skebm.MixedRBM, LONG | {"kinds": "real"}, gaussian),
    "bits": (skebm.BernoulliRBM, LONG, bits),
    "deep": (skebm.DeepBoltzmannMachine, DEEP, bits),
    "belief": (skebm.DeepBeliefNetwork, DEEP, bits),
    "levels by default": (skebm.CategoricalRBM, {}, levels),
    "pairs by default": (skebm.BoltzmannMachine, {}, bits),
}


def false_alarms(kind, settings, draw):
    """Return the share of clean new rows with p <= .05, mean over tables."""
    share = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows, new = draw(rng, N), draw(rng, N_NEW)
        model = kind(**settings, random_state=seed).fit(rows)
        share.append((model.p_values(new) <= 0.05).mean())
    return np.mean(share)


@pytest.mark.parametrize("name", CASES)
def test_clean_new_rows_raise_few_alarms(name):
    # The models of the folds see fewer rows: p-values may be too large.
    assert 0 < false_alarms(*CASES[name]) <= 0.05 + SLACK


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_CASES)
def test_clean_new_rows_raise_few_alarms_in_longer_fits(name):
    assert 0 < false_alarms(*SLOW_CASES[name]) <= 0.05 + SLACK


@pytest.mark.parametrize(
    ("n", "d", "first"),
    [(40, 4, 5), pytest.param(100, 12, 100, marks=pytest.mark.slow)],
)
def test_independent_bits_stay_independent(n, d, first, monkeypatch):
    monkeypatch.setattr(rbm_training, "FIRST_EVALUATION", first)
    rng = np.random.default_rng(0)
    rows, new = (rng.integers(0, 2, size=(m, d)).astype(float) for m in (n, 2000))
    model = skebm.BoltzmannMachine(random_state=0).fit(rows)
    p = rows.mean(0)
    usual = np.where(new, np.log(p), np.log1p(-p)).sum(1)
    assert not model.couplings_.to_numpy().any()
    np.testing.assert_allclose(model.score_samples(new), usual, atol=2.0 / n)


@pytest.mark.parametrize(
    ("n", "n_iter", "n_calibrating"),
    [(10, 1, 10), (100, 1, 100), (500, 1, 100), (12_000, 1, 2000)],
)
def test_a_given_number_of_epochs_trains_on_all_rows(n, n_iter, n_calibrating):
    X = bits(np.random.default_rng(0), n)
    model = skebm.BernoulliRBM(3, n_iter=n_iter, random_state=0).fit(X)
    assert len(model.calibration_energy_) == n_calibrating
    seen = skebm.BernoulliRBM(3, n_iter=n_iter, random_state=0, normalizer="sum")
    seen.early_stopping = False
    assert np.array_equal(seen.fit(X).components_, model.components_)


def test_the_best_epoch_is_one_that_every_fold_evaluated():
    curves = [{2: 1.0, 4: 0.5, 8: 0.2}, {2: 1.0, 4: 0.7}]
    assert best_epoch(curves) == 4
    assert best_epoch([{}, {3: 0.1}]) == 1


def test_codes_of_blobs_flag_few_training_rows():
    # scikit-learn's checks of training rows, on codes: 300 ranks have sd .0126.
    rng = np.random.default_rng(0)
    codes = rng.poisson(4.0, size=(300, 2)).astype(float)
    model = skebm.CategoricalRBM(4, n_iter=5, random_state=0).fit(codes)
    labels = model.predict(codes)
    assert set(labels) == {-1, 1}
    assert abs((labels == -1).mean() - 0.05) < 3 * 0.0126
    assert np.array_equal(labels, np.where(model.decision_function(codes) < 0, -1, 1))
