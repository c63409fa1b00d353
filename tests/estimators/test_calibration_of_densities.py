"""P-values of densities on clean new rows: training saw none that calibrate."""

import numpy as np
import pytest

import skebm

N, N_NEW, D, SEEDS = 100, 2000, 5, range(4)
SHORT = {"n_iter": 200}


def gaussian(rng, n):
    return rng.normal(size=(n, D))


def levels(rng, n):
    return rng.integers(0, 3, size=(n, 12)).astype(float)


CASES = {
    "gaussian": (skebm.GaussianRBM, {"n_components": 8}, gaussian),
    "levels": (skebm.CategoricalRBM, {"n_components": 8}, levels),
    "mixed": (skebm.MixedRBM, {"n_components": 8, "kinds": "real"}, gaussian),
}


@pytest.mark.parametrize("name", CASES)
def test_clean_new_rows_raise_few_alarms(name):
    # A quantile of 100 ranks has sd .022; the mean over 4 tables .011, times 2.6.
    kind, settings, draw = CASES[name]
    share = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows, new = draw(rng, N), draw(rng, N_NEW)
        fit = kind(**settings, **SHORT, random_state=seed).fit(rows)
        share.append((fit.p_values(new) <= 0.05).mean())
    assert np.mean(share) <= 0.05 + 0.029


def test_independent_bits_stay_independent():
    rng = np.random.default_rng(0)
    rows, new = (rng.random((n, 12)) < 0.5 for n in (100, 2000))
    model = skebm.BoltzmannMachine(random_state=0).fit(rows.astype(float))
    p = np.clip(rows.mean(0), 1e-9, 1)
    usual = np.where(new, np.log(p), np.log1p(-p)).sum(1)
    gain = model.score_samples(new.astype(float)) - usual
    assert gain.mean() > -0.05
