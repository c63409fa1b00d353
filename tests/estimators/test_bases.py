"""The choice of a base, its tails, and the choice between candidates."""

import numpy as np
import torch

from skebm import DeepEBM
from skebm.estimators.bases import FLOOR, base_of, choose_mixture, fitted_base
from skebm.estimators.recipes import fit_large
from skebm.estimators.runs import Runs
from skebm.estimators.weighting import counted


def ring(n, seed=0):
    rng = np.random.default_rng(seed)
    angle = np.pi / 4 * rng.integers(8, size=n)
    center = np.column_stack([np.cos(angle), np.sin(angle)])
    return 1.4 * center + 0.15 * rng.normal(size=(n, 2))


def halves(n):
    return [(np.arange(n // 2), np.arange(n // 2, n))]


def test_eight_modes_get_eight_components_or_more_and_a_normal_few():
    assert choose_mixture(ring(2000), halves(2000), 0).n_components >= 8
    for seed in range(3):
        normal = np.random.default_rng(seed).normal(size=(2000, 2))
        assert choose_mixture(normal, halves(2000), 0).n_components <= 4


def test_a_base_has_a_broad_component_over_all_rows():
    z = ring(500)
    base = fitted_base(base_of("gaussian", z, halves(500), 0), z)
    np.testing.assert_allclose(base.log_weights.exp(), [0.98, 0.02], rtol=1e-5)
    broad = base.factors[-1] @ base.factors[-1].T
    expected = 2 * (np.cov(z.T, bias=True) + FLOOR * np.eye(2))
    np.testing.assert_allclose(broad, expected, rtol=1e-4, atol=1e-6)


def test_the_candidate_with_the_best_held_out_likelihood_is_kept():
    """One epoch does not lift a single Gaussian to the mixture of eight."""
    z = ring(2200)
    params = DeepEBM(max_iter=1, batch_size=1024).get_params(deep=False)
    runs = Runs(params, torch.device("cpu"), 0)
    fit = fit_large(counted(z), "auto", runs, 0.1)
    held_out = runs.tensor(z[fit.held_out])
    assert len(fit.base.means) >= 9
    kept = runs.log_density(fit.energy, held_out).mean()
    assert kept >= runs.log_density(fit.base, held_out).mean() - 0.02


def test_copies_do_not_make_a_gain_clearer():
    """Each row ten times, as shares of weights are: the same mixture is chosen."""
    z = np.random.default_rng(0).standard_t(4, size=(90, 2))
    (train, held_out), copies = halves(90)[0], np.arange(900).reshape(90, 10)
    splits = [(copies[train].ravel(), copies[held_out].ravel())]
    once = choose_mixture(z, [(train, held_out)], 0)
    tenfold = choose_mixture(np.repeat(z, 10, axis=0), splits, 0, copies=10)
    eager = choose_mixture(np.repeat(z, 10, axis=0), splits, 0)
    assert tenfold.n_components == once.n_components
    assert eager.n_components > once.n_components
