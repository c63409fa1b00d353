"""BernoulliRBM against sums over all states: likelihood, draws, missing entries."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit, log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skebm import BernoulliRBM
from skebm.estimators.rbm_training import PATIENCE
from skebm.exceptions import DataDomainError
from skebm.objectives import RBMLikelihood
from skebm.partition import AnnealedGibbs

NAMES = list("abcdef")
STATES = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
NO_HOLE = np.array([1.0, 0, 1, 1, 0, 0])
FAST = {
    "learning_rate": 0.5,
    "batch_size": 20,
    "n_iter": 60,
    "objective": RBMLikelihood(weight_decay=0.0),
    "random_state": 0,
}
NOISE = {"rbm": (20_000, 0.035), "wide": (2500, 0.1)}
"""Draws, and the largest total variation between the law of 64 states and them: on
average it is 0.02 of 20,000 and 0.06 of 2500."""


def bits(n, seed=0):
    """Three columns that mostly agree, and three of which mostly one is on."""
    rng = np.random.default_rng(seed)
    same = (rng.random((n, 1)) < 0.3) ^ (rng.random((n, 3)) < 0.05)
    one_hot = np.eye(3, dtype=bool)[rng.integers(3, size=n)]
    return np.hstack([same, one_hot ^ (rng.random((n, 3)) < 0.02)]).astype(float)


def true_law():
    """Return the probabilities of all states under the law of `bits`."""
    same = sum(
        weight * np.where(STATES[:, :3] == value, 0.95, 0.05).prod(1)
        for value, weight in [(1, 0.3), (0, 0.7)]
    )
    one_hot = sum(
        np.where(STATES[:, 3:] == row, 0.98, 0.02).prod(1) / 3 for row in np.eye(3)
    )
    return same * one_hot


def trained(n_components, **params):
    return BernoulliRBM(n_components, **FAST | params).fit(bits(400))


@pytest.fixture(scope="module")
def rbm():
    """Strong couplings; few enough hidden bits to list their states."""
    return trained(5)


@pytest.fixture(scope="module")
def wide():
    """More hidden bits than are listed."""
    return trained(18)


@pytest.fixture(params=["rbm", "wide"])
def either(request):
    return request.getfixturevalue(request.param)


def free_energies(rbm, v):
    fields = rbm.intercept_hidden_ + v @ rbm.components_.T
    return -v @ rbm.intercept_visible_ - np.logaddexp(0, fields).sum(1)


def law(rbm):
    """Return the probabilities of all states."""
    return softmax(-free_energies(rbm, STATES))


def hidden_means(rbm, v):
    return expit(rbm.intercept_hidden_ + v @ rbm.components_.T)


def frequencies(rows):
    """Return how often each state comes; raise if a row is none."""
    rows = np.asarray(rows)
    assert set(np.unique(rows)) <= {0.0, 1.0}
    return np.bincount((rows @ 2 ** np.arange(5, -1, -1)).astype(int), minlength=64) / (
        len(rows)
    )


def variation(p, q):
    return 0.5 * np.abs(p - q).sum()


def holed(n, seed=3):
    """Return rows of which every second has missing entries, up to all of them."""
    rng = np.random.default_rng(seed)
    rows = bits(n, seed)
    rows[::2][rng.random((len(rows[::2]), 6)) < 0.5] = np.nan
    rows[0] = np.nan
    return rows


def agreeing(row):
    """Tell which states agree with the known entries of a row."""
    return np.all(np.isnan(row) | (row == STATES), axis=1)


def test_the_machine_of_these_tests_is_far_from_independent_columns(either):
    """So that a truth below cannot hold by chance."""
    p = law(either)
    means = p @ STATES
    independent = np.prod(np.where(STATES == 1, means, 1 - means), axis=1)
    assert variation(p, independent) > 0.4
    assert np.abs(either.components_).max() > 1


def test_scores_are_the_log_probabilities_of_all_states(either):
    expected = log_softmax(-free_energies(either, STATES))
    np.testing.assert_allclose(either.score_samples(STATES), expected, atol=1e-5)
    assert np.exp(either.score_samples(STATES)).sum() == pytest.approx(1.0, abs=1e-5)
    assert either.score(STATES) == pytest.approx(expected.mean(), abs=1e-5)
    low, high = either.log_partition_interval_
    assert low == high == either.log_partition_
    assert either.log_partition_ess_ == np.inf


def test_energy_is_the_free_energy_also_of_probabilities(either):
    rows = np.random.default_rng(0).random((50, 6))
    np.testing.assert_allclose(
        either.energy(rows), free_energies(either, rows), rtol=1e-6
    )


def test_fitted_attributes(rbm):
    assert rbm.components_.shape == (5, 6)
    assert rbm.intercept_hidden_.shape == (5,)
    assert rbm.intercept_visible_.shape == (6,)
    assert rbm.h_samples_.shape == (100, 5)
    assert set(np.unique(rbm.h_samples_)) <= {0.0, 1.0}
    for mine, ours in [
        (rbm.components_, rbm.energy_.weight),
        (rbm.intercept_hidden_, rbm.energy_.hidden_bias),
        (rbm.intercept_visible_, rbm.energy_.visible_bias),
    ]:
        np.testing.assert_array_equal(mine, ours.numpy())
    assert rbm.n_iter_ == 60
    assert set(rbm.history_) >= {"loss", "reconstruction_error", "learning_rate"}
    assert len(rbm.history_["loss"]) == 60


@pytest.mark.parametrize("rows", ["bits", "probabilities"])
def test_pseudo_log_likelihood_is_the_sum_of_the_conditionals(either, rows):
    v = STATES if rows == "bits" else np.random.default_rng(1).random((40, 6))
    expected = np.zeros(len(v))
    for i in range(6):
        on, off = v.copy(), v.copy()
        on[:, i], off[:, i] = 1, 0
        energies = [free_energies(either, off), free_energies(either, on)]
        log_p = log_softmax(-np.array(energies), axis=0)
        expected += (1 - v[:, i]) * log_p[0] + v[:, i] * log_p[1]
    found = either.pseudo_log_likelihood(v)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="NaN"):
        either.pseudo_log_likelihood(holed(4))


def test_transform_is_the_mean_of_the_hidden_bits(rbm):
    found = rbm.transform(STATES)
    np.testing.assert_allclose(found, hidden_means(rbm, STATES), rtol=0, atol=1e-12)
    assert rbm.transform(STATES.astype(np.float32)).dtype == np.float32
    rows = holed(20)
    np.testing.assert_array_equal(rbm.transform(rows), rbm.transform(rbm.impute(rows)))


def test_reconstruct_goes_up_and_down_by_means(rbm):
    down = hidden_means(rbm, STATES) @ rbm.components_ + rbm.intercept_visible_
    np.testing.assert_allclose(rbm.reconstruct(STATES), expit(down), atol=1e-12)


def test_gibbs_draws_from_its_kernel(rbm):
    """p(v' | v) is a sum over all hidden states."""
    hidden = np.array(list(itertools.product([0.0, 1.0], repeat=5)))
    p_h = hidden_means(rbm, NO_HOLE[None])
    p_h = np.prod(np.where(hidden == 1, p_h, 1 - p_h), axis=1)
    p_v = expit(hidden @ rbm.components_ + rbm.intercept_visible_)
    each = np.where(STATES[None] == 1, p_v[:, None], 1 - p_v[:, None]).prod(2)
    machine = clone(rbm).fit(bits(400))
    n, noise = NOISE["rbm"]
    draws = machine.gibbs(np.repeat(NO_HOLE[None], n, axis=0))
    assert variation(frequencies(draws), p_h @ each) < noise
    assert np.any(machine.gibbs(draws) != machine.gibbs(draws))


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("given", [{}, {3: 0, 5: 1}, {0: 0, 1: 1, 2: 0}])
def test_sample_draws_from_the_law_given_some_columns(request, name, given):
    machine, (n, noise) = request.getfixturevalue(name), NOISE[name]
    row = np.full(6, np.nan)
    row[list(given)] = list(given.values())
    p = np.where(agreeing(row), law(machine), 0.0)
    draws = machine.sample(n, given=given, random_state=1)
    assert variation(frequencies(draws), p / p.sum()) < noise


def test_draws_follow_their_seed(either):
    np.testing.assert_array_equal(either.sample(9), either.sample(9))
    assert np.any(either.sample(9, random_state=0) != either.sample(9, random_state=1))


def test_missing_entries_are_summed_out(rbm):
    rows = holed(60)
    p = law(rbm)
    expected = [np.log(p[agreeing(row)].sum()) for row in rows]
    np.testing.assert_allclose(rbm.score_samples(rows), expected, atol=1e-5)
    assert expected[0] == pytest.approx(0.0)


def test_missing_entries_are_summed_out_by_annealing(wide):
    rows = holed(24)
    p = law(wide)
    expected = [np.log(p[agreeing(row)].sum()) for row in rows]
    scores = wide.score_samples(rows)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=0.05)
    np.testing.assert_allclose(scores[1::2], expected[1::2], rtol=0, atol=1e-5)


def test_row_24_missing_entries_alone_as_in_a_table(either):
    """Also where the sum is annealed: the noise of a row is its own."""
    rows = holed(20)
    scores = either.score_samples(rows)
    np.testing.assert_array_equal(either.score_samples(rows[::-1]), scores[::-1])
    alone = [either.score_samples(row[None])[0] for row in rows]
    np.testing.assert_array_equal(alone, scores)


def conditional_means(rbm, rows):
    p = law(rbm)
    return np.array(
        [p[agreeing(r)] @ STATES[agreeing(r)] / p[agreeing(r)].sum() for r in rows]
    )


def test_imputed_values_are_conditional_means(rbm):
    rows = holed(60)
    filled = rbm.impute(rows)
    np.testing.assert_allclose(filled, conditional_means(rbm, rows), atol=1e-5)
    known = ~np.isnan(rows)
    np.testing.assert_array_equal(filled[known], rows[known])


def test_imputed_values_of_many_hidden_bits_are_near_conditional_means(wide):
    rows = holed(60)
    filled = wide.impute(rows)
    error = filled - conditional_means(wide, rows)
    assert np.sqrt(np.mean(error[np.isnan(rows)] ** 2)) < 0.12
    assert np.any(wide.impute(rows, random_state=0) != filled)
    np.testing.assert_array_equal(
        wide.impute(rows, random_state=0), wide.impute(rows, random_state=0)
    )


def test_training_finds_the_law_of_the_rows(rbm):
    """What is left to the entropy is the noise of 400 rows."""
    p = true_law()
    assert p.sum() == pytest.approx(1.0)
    entropy = -(p @ np.log(p))
    assert -entropy - 0.1 < p @ rbm.score_samples(STATES) < -entropy


def test_missing_entries_in_training_cost_little():
    rows, p = bits(2000), true_law()
    rows[np.random.default_rng(0).random(rows.shape) < 0.2] = np.nan
    rbm = BernoulliRBM(5, **FAST | {"n_iter": 12}).fit(rows)
    assert p @ (rbm.score_samples(STATES) - np.log(p)) > -0.2


def test_partial_fit_learns_from_a_stream():
    p, scores = true_law(), []
    rbm = BernoulliRBM(8, learning_rate=0.5, random_state=0)
    for seed in range(301):
        assert rbm.partial_fit(bits(50, seed + 100)) is rbm
        if seed % 100 == 0:
            scores.append(p @ rbm.score_samples(STATES))
    assert np.all(np.diff(scores) > 0.02)
    assert scores[-1] > scores[0] + 0.5


def test_partial_fit_goes_on_from_a_fit():
    p, rbm = true_law(), trained(8, n_iter=6)
    before = p @ rbm.score_samples(STATES)
    rbm.partial_fit(bits(50, 1))
    assert p @ rbm.score_samples(STATES) == pytest.approx(before, abs=0.1)
    for seed in range(150):
        rbm.partial_fit(bits(50, seed + 100))
    assert p @ rbm.score_samples(STATES) > before + 0.1


def test_batches_of_a_stream_are_counted_and_recorded():
    rbm = BernoulliRBM(8, n_iter=3, random_state=0)
    for seed in range(2):
        rbm.partial_fit(bits(50, seed))
    assert rbm.n_iter_ == 2
    assert {len(v) for v in rbm.history_.values()} == {2}
    assert rbm.history_.keys() >= {"loss", "reconstruction_error"}
    keys = rbm.fit(bits(50)).history_.keys()
    assert rbm.partial_fit(bits(50, 1)).n_iter_ == 4
    assert rbm.history_.keys() == keys
    assert len(rbm.history_["loss"]) == 4


def test_sparse_rows_are_rows():
    rows, sparse = bits(100), csr_matrix(bits(100))
    dense, from_sparse = (
        BernoulliRBM(3, n_iter=5, random_state=0).fit(x) for x in (rows, sparse)
    )
    np.testing.assert_array_equal(from_sparse.components_, dense.components_)
    for reader in ["energy", "transform", "reconstruct", "pseudo_log_likelihood"]:
        np.testing.assert_array_equal(
            getattr(dense, reader)(sparse), getattr(dense, reader)(rows)
        )
    for x in (rows, sparse):
        streams = [BernoulliRBM(3, random_state=0).partial_fit(x) for x in (rows, x)]
        np.testing.assert_array_equal(streams[0].components_, streams[1].components_)


def test_binarize():
    rows = bits(100)
    grey = np.where(rows == 1, 200.0, 30.0)
    grey[7, 2] = np.nan
    plain = BernoulliRBM(3, n_iter=5, random_state=0)
    with pytest.raises(DataDomainError, match=r"\[0, 1\]; got values in \[0, 200\]"):
        plain.fit(grey)
    cut = clone(plain).set_params(binarize=127.5).fit(grey)
    rows[7, 2] = np.nan
    np.testing.assert_array_equal(cut.energy(grey), plain.fit(rows).energy(rows))
    np.testing.assert_array_equal(clone(cut).fit(grey).sample(5), plain.sample(5))


def test_early_stopping_keeps_the_best_look():
    """The calibration rows are the held-out ones: their likelihood is the best seen."""
    rbm = BernoulliRBM(
        16, learning_rate=8.0, n_iter=300, early_stopping=True, random_state=0
    ).fit(bits(60))
    losses = rbm.history_["valid_loss"]
    assert len(losses) == 1 + PATIENCE + losses.argmin()
    assert rbm.n_iter_ == 10 * len(losses) < 300
    assert len(rbm.calibration_energy_) == 6
    kept = rbm.calibration_energy_.mean() + rbm.log_partition_
    assert kept == pytest.approx(losses.min(), abs=1e-4)
    assert kept < losses[-1] - 1e-3


def test_without_a_normaliser_there_is_no_score():
    rbm = trained(3, n_iter=5, normalizer=None)
    assert rbm.log_partition_ is None
    assert rbm.log_partition_interval_ is None
    assert not hasattr(rbm, "score")
    np.testing.assert_array_equal(rbm.score_samples(STATES), -rbm.energy(STATES))
    rbm.partial_fit(bits(50))
    assert rbm.log_partition_ is None


def test_annealed_log_partition_is_near_the_sum(rbm):
    value = AnnealedGibbs(512, n_temperatures=500)
    annealed = clone(rbm).set_params(normalizer=value).fit(bits(400))
    low, high = annealed.log_partition_interval_
    width = high - low
    assert low - width < rbm.log_partition_ < high + width
    assert 0 < width < 0.2
    assert annealed.log_partition_ess_ > 50


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_contamination_is_the_share_of_flagged_rows(share):
    rows = bits(400)
    calls = trained(5, n_iter=50, contamination=share).predict(rows)
    assert 0 < np.mean(calls == -1) <= share


def test_rows_that_break_a_rule_are_anomalies(rbm):
    broken = [[1, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]]
    usual = [[1, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]]
    np.testing.assert_array_equal(rbm.predict(broken + usual), [-1, -1, 1, 1])


def test_dataframes_come_back_with_their_names():
    frame = pd.DataFrame(holed(60), columns=NAMES)
    rbm = BernoulliRBM(3, n_iter=5, random_state=0).fit(frame)
    found = [rbm.sample(4), rbm.impute(frame), rbm.reconstruct(frame), rbm.gibbs(frame)]
    for rows in found:
        assert isinstance(rows, pd.DataFrame)
        assert list(rows.columns) == NAMES
        assert not rows.isna().any(axis=None)
    drawn = rbm.sample(50, given={"b": 1, "e": 0})
    assert (drawn["b"] == 1).all()
    assert (drawn["e"] == 0).all()
    assert list(rbm.get_feature_names_out()) == [f"bernoullirbm{j}" for j in range(3)]
    hidden = rbm.set_output(transform="pandas").transform(frame)
    assert list(hidden.columns) == list(rbm.get_feature_names_out())
    lines = rbm.diagnose(8)
    assert list(lines.index[:6]) == NAMES
    assert len(lines) == 7


@pytest.mark.parametrize("given", [{9: 1}, {"a": 1}, {0: 3.0}])
def test_given_columns_that_make_no_sense(rbm, given):
    with pytest.raises(ValueError, match=r"column|given|Got|needs"):
        rbm.sample(given=given)


def test_verbose_prints_the_pseudo_likelihood(capsys):
    rbm = trained(3, n_iter=3, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    form = (
        r"\[BernoulliRBM\] Iteration (\d), pseudo-likelihood = (-\d+\.\d\d), "
        r"time = \d+\.\d\ds"
    )
    numbers = [re.fullmatch(form, line).groups() for line in lines]
    assert [number for number, _ in numbers] == ["1", "2", "3"]
    last = rbm.pseudo_log_likelihood(bits(400)).mean()
    assert float(numbers[-1][1]) == pytest.approx(last, abs=0.006)


def test_no_epochs_leave_independent_columns():
    """With the base rates of the rows, half a row added to each value."""
    rows = bits(400)
    rbm = trained(5, n_iter=0)
    assert rbm.n_iter_ == 0
    p = (rows.sum(0) + 0.5) / 401
    expected = (STATES * np.log(p) + (1 - STATES) * np.log(1 - p)).sum(1)
    np.testing.assert_allclose(rbm.score_samples(STATES), expected, atol=0.15)


def test_float32_rows_train_the_same_machine():
    narrow = BernoulliRBM(5, **FAST | {"n_iter": 5})
    narrow.fit(bits(400).astype(np.float32))
    wide = trained(5, n_iter=5)
    np.testing.assert_array_equal(narrow.components_, wide.components_)
    np.testing.assert_array_equal(narrow.h_samples_, wide.h_samples_)
    np.testing.assert_array_equal(narrow.energy(STATES), wide.energy(STATES))


def test_grid_search_picks_by_the_likelihood():
    """Both groups of columns are beyond a single hidden bit."""
    search = GridSearchCV(
        BernoulliRBM(**FAST | {"n_iter": 100}),
        {"n_components": [1, 5]},
        cv=2,
        refit=False,
        error_score="raise",
    ).fit(bits(400))
    assert search.best_params_ == {"n_components": 5}
    worse, better = search.cv_results_["mean_test_score"]
    assert better > worse + 0.1


@pytest.mark.parametrize(("rate", "seed"), [(20.0, 3), (40.0, 0)])
def test_a_machine_worse_than_independent_columns_is_told(rate, seed):
    """Too large a rate for so many epochs, too small to make the energies explode."""
    rbm = BernoulliRBM(16, learning_rate=rate, n_iter=100, random_state=seed)
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate") as caught:
        rbm.fit(bits(90))
    assert caught[0].filename == __file__
    assert rbm.score(bits(90)) < -10


def test_two_rows_do_not_overshoot():
    """On few rows the adaptive penalty times the rate was larger than two."""
    X = np.array([[0.0], [1.0]])
    rbm = BernoulliRBM(4, n_iter=300, random_state=0).fit(X)
    assert rbm.score(X) == pytest.approx(np.log(0.5), abs=0.01)


def test_tempered_chains_cross_between_copies():
    """Columns that repeat each other make modes that plain chains do not leave."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.random((500, 3)) < 0.5, 6, axis=1).astype(float)
    rbm = BernoulliRBM(8, n_iter=300, objective="tempered", random_state=0).fit(X)
    assert rbm.score(X) > -3 * np.log(2) - 0.1
