"""BoltzmannMachine: an Ising ring, sums over all states, digits."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from skebm import BernoulliRBM, BoltzmannMachine
from skebm.energies import Boltzmann
from skebm.exceptions import DataDomainError, NotMixedWarning
from skebm.objectives import BoltzmannLikelihood, PseudoLikelihood
from skebm.partition import AnnealedUnitGibbs
from skebm.samplers.state_law import law_of
from tests.energies.machines import bits, generator

J = 0.5
"""Coupling of neighbouring spins of the ring."""


def ising_ring(n=10):
    """Return the machine of a ring of spins without a field, in bits: L = 4 J."""
    machine = Boltzmann().build(n).double()
    i, j = machine.pairs
    with torch.no_grad():
        machine.couplings.copy_(4 * J * ((j - i == 1) | (j - i == n - 1)))
        machine.bias.copy_(-machine.matrix().sum(1) / 2)
    return machine


@pytest.fixture(scope="module")
def ring_rows():
    return law_of(ising_ring()).sample(20_000, generator=generator()).numpy()


def spin_errors(fitted):
    """Return how far the couplings of spins are from those of the ring."""
    return (fitted.couplings_.to_numpy() - ising_ring().matrix().detach().numpy()) / 4


def parity(n, rng):
    """Return n rows of three bits of which an even number is set, 5% flipped."""
    rows = rng.integers(0, 2, (n, 2))
    rows = np.column_stack([rows, rows.sum(1) % 2])
    return (rows ^ (rng.random(rows.shape) < 0.05)).astype(float)


@pytest.mark.parametrize("objective", ["auto", "pseudo_likelihood"])
def test_couplings_of_an_ising_ring_are_found(ring_rows, objective):
    names = [f"spin{i}" for i in range(10)]
    frame = pd.DataFrame(ring_rows, columns=names)
    fitted = BoltzmannMachine(objective=objective, random_state=0).fit(frame)
    assert isinstance(fitted.couplings_, pd.DataFrame)
    assert list(fitted.couplings_.columns) == list(fitted.couplings_.index) == names
    assert fitted.couplings_.loc["spin0", "spin9"] == pytest.approx(4 * J, abs=0.2)
    assert np.abs(spin_errors(fitted)).max() < 0.05
    assert fitted.log_partition_interval_ == (fitted.log_partition_,) * 2


def test_fitted_moments_are_those_of_the_rows(ring_rows):
    """What maximum likelihood of an exponential family means."""
    rows = ring_rows[:2000]
    objective = BoltzmannLikelihood(weight_decay=0.0)
    fitted = BoltzmannMachine(objective=objective, random_state=0).fit(rows)
    mean, second = law_of(fitted.energy_).moments()
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-4)
    np.testing.assert_allclose(second, rows.T @ rows / len(rows), atol=1e-4)


def test_chains_find_the_couplings_too(ring_rows):
    fitted = BoltzmannMachine(
        objective="pcd", n_iter=10, batch_size=200, random_state=0
    ).fit(ring_rows)
    assert np.abs(spin_errors(fitted)).max() < 0.08


def test_score_is_the_log_likelihood(rng):
    for n_components in (0, 2):
        X = parity(200, rng)
        fitted = BoltzmannMachine(n_components, n_iter=50, random_state=0).fit(X)
        assert np.exp(fitted.score_samples(bits(3).numpy())).sum() == pytest.approx(
            1.0, abs=1e-6
        )
        assert fitted.couplings_.shape == (3 + n_components,) * 2
        assert fitted.intercept_visible_.shape == (3,)
        assert fitted.intercept_hidden_.shape == (n_components,)


def test_hidden_bits_learn_what_pairs_cannot(rng):
    """Parity has no pairwise statistics: without hidden bits, three fair coins."""
    X = parity(1000, rng)
    plain = BoltzmannMachine(random_state=0).fit(X).score(X)
    objective = BoltzmannLikelihood(weight_decay=0.0)
    hidden = BoltzmannMachine(2, objective=objective, n_iter=600, random_state=0).fit(X)
    assert plain == pytest.approx(-3 * np.log(2), abs=0.01)
    counts = np.unique(X, axis=0, return_counts=True)[1] / len(X)
    assert hidden.score(X) == pytest.approx((counts * np.log(counts)).sum(), abs=0.03)
    assert list(hidden.couplings_.columns[-2:]) == ["hidden0", "hidden1"]


def test_annealed_normaliser_agrees_with_the_sum(ring_rows):
    X = ring_rows[:500]
    exact = BoltzmannMachine(n_iter=50, random_state=0).fit(X)
    annealed = BoltzmannMachine(n_iter=50, normalizer="annealing", random_state=0).fit(
        X
    )
    low, high = annealed.log_partition_interval_
    assert annealed.log_partition_ == pytest.approx(exact.log_partition_, abs=0.1)
    assert low < annealed.log_partition_ < high
    assert annealed.log_partition_ess_ < np.inf
    unknown = BoltzmannMachine(n_iter=5, normalizer=None).fit(X)
    assert unknown.log_partition_ is None
    assert not hasattr(unknown, "score")


def conditional_means(fitted, row):
    """Return E[v | observed] by a sum over all rows."""
    v = bits(len(row)).numpy()
    v = v[(np.isnan(row) | (v == row)).all(1)]
    p = np.exp(fitted.score_samples(v))
    return p @ v / p.sum()


def test_draws_and_imputation_have_the_conditional_law(ring_rows):
    fitted = BoltzmannMachine(random_state=0).fit(ring_rows[:2000])
    row = np.full(10, np.nan)
    row[[0, 4]] = 1.0, 0.0
    expected = conditional_means(fitted, row)
    drawn = fitted.sample(5000, given={0: 1, 4: 0})
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.03)
    free = fitted.sample(5000)
    nothing = conditional_means(fitted, np.full(10, np.nan))
    np.testing.assert_allclose(free.mean(0), nothing, atol=0.03)
    filled = fitted.impute(np.tile(row, (100, 1))).mean(0)
    np.testing.assert_allclose(filled, expected, atol=0.03)
    assert set(filled[[0, 4]]) == {0.0, 1.0}
    np.testing.assert_array_equal(fitted.impute(drawn[:5]), drawn[:5])


def test_pseudo_log_likelihood_sums_conditionals(ring_rows):
    fitted = BoltzmannMachine(n_iter=50, random_state=0).fit(ring_rows[:500])
    x = ring_rows[:20]
    expected = np.zeros(20)
    for i in range(10):
        flipped = x.copy()
        flipped[:, i] = 1 - x[:, i]
        expected -= np.logaddexp(0, fitted.energy(x) - fitted.energy(flipped))
    np.testing.assert_allclose(fitted.pseudo_log_likelihood(x), expected, atol=1e-4)
    hidden = BoltzmannMachine(1, n_iter=2).fit(x)
    with pytest.raises(ValueError, match=r"n_components=1.*score_samples"):
        hidden.pseudo_log_likelihood(x)


def test_chains_of_a_diagnosis_mix(ring_rows):
    fitted = BoltzmannMachine(random_state=0).fit(ring_rows[:1000])
    table = fitted.diagnose(50)
    assert len(table) == 11
    assert table["rhat"].max() < 1.1
    assert table["mean"].iloc[:10].to_numpy() == pytest.approx(
        ring_rows[:1000].mean(0), abs=0.06
    )


def test_early_stopping_keeps_rows_aside(rng):
    X = (rng.random((60, 8)) < 0.5).astype(float)
    objective = BoltzmannLikelihood(weight_decay=0.0)
    fitted = BoltzmannMachine(
        objective=objective, early_stopping=True, random_state=0
    ).fit(X)
    best = fitted.history_["valid_loss"].min()
    assert fitted.n_iter_ < 500
    assert len(fitted.calibration_energy_) == 6
    held_out = -fitted.calibration_energy_.mean() - fitted.log_partition_
    assert held_out == pytest.approx(-best, abs=1e-4)


def test_verbose_prints_a_line_per_epoch(ring_rows, capsys):
    BoltzmannMachine(n_iter=3, verbose=1).fit(ring_rows[:50])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("[BoltzmannMachine] Iteration 1, loss = ")


def test_values_between_are_probabilities_and_others_are_refused(rng):
    X = rng.random((50, 3))
    fitted = BoltzmannMachine(n_iter=20, random_state=0).fit(X)
    np.testing.assert_allclose(
        law_of(fitted.energy_).moments()[0], X.mean(0), atol=0.05
    )
    with pytest.raises(DataDomainError, match=r"X in \[0, 1\]; got values in \[0, 3"):
        BoltzmannMachine().fit(3 * np.round(X))
    with pytest.raises(DataDomainError, match="binarize"):
        fitted.score_samples(X - 1)
    with pytest.raises(ValueError, match="NaN"):
        fitted.score_samples([[0.0, np.nan, 1.0]])


@pytest.mark.parametrize(
    "params",
    [
        {"n_components": 17},
        {"n_components": 1, "objective": "pseudo_likelihood"},
        {"n_components": 1, "objective": PseudoLikelihood()},
        {"objective": "cd"},
        {"n_iter": 0},
    ],
)
def test_bad_parameters_are_refused(ring_rows, params):
    with pytest.raises(ValueError, match=r"n_components|n_hidden|objective|n_iter"):
        BoltzmannMachine(**params).fit(ring_rows[:50])


def test_exact_training_beyond_twenty_units_is_refused(rng):
    X = (rng.random((20, 21)) < 0.5).astype(float)
    with pytest.raises(ValueError, match="up to 20 units"):
        BoltzmannMachine(objective="likelihood").fit(X)
    annealing = AnnealedUnitGibbs(32, 100)
    short = BoltzmannMachine(n_iter=2, normalizer=annealing, random_state=0).fit(X)
    assert short.n_iter_ == 2
    assert np.isfinite(short.score(X))


@pytest.mark.slow
def test_defaults_on_digits_beat_a_small_rbm():
    """Every pair of 64 pixels, by chains: about -18.0 against -18.1 exactly."""
    X = (load_digits().data >= 8).astype(float)
    order = np.random.default_rng(0).permutation(len(X))
    train, test = X[order[:1437]], X[order[1437:]]
    fitted = BoltzmannMachine(random_state=0).fit(train)
    low, high = fitted.log_partition_interval_
    assert high - low < 0.2
    assert fitted.score(test) > -18.15
    rbm = BernoulliRBM(16, random_state=0).fit(train)
    assert fitted.score(test) > rbm.score(test) - 0.2


def test_chains_that_stay_in_their_modes_are_told_of():
    x = np.r_[np.zeros((200, 8)), np.ones((200, 8))]
    model = BoltzmannMachine(random_state=0).fit(x)
    with pytest.warns(NotMixedWarning, match="some of the modes"):
        model.diagnose(50)
