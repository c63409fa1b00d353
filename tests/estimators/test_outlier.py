"""EnergyOutlierDetector: are its p-values, rates, reasons and samples right?"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, spearmanr
from sklearn.exceptions import NotFittedError

from skebm import EnergyOutlierDetector

NOVELTY = pytest.mark.parametrize("novelty", [False, True])


def detector(**params):
    return EnergyOutlierDetector(random_state=0, **params)


def p_values_of_clean_rows(n_draws, novelty, calibrate, n_train=400, n_new=100):
    """Return p-values, shape (n_draws, n_new), of rows like the training rows."""
    p = np.empty((n_draws, n_new))
    for draw in range(n_draws):
        rng = np.random.default_rng(draw)
        mixing = rng.normal(size=(4, 4))
        X = rng.normal(size=(2 * n_train + n_new, 4)) @ mixing
        model = detector(novelty=novelty)
        if calibrate:
            model.fit(X[:200]).calibrate(X[n_train:-n_new])
        else:
            model.fit(X[:n_train])
        p[draw] = model.p_values(X[-n_new:])
    return p


def check_p_values(p):
    """Criterion 5: uniform in 95% of the draws, 5% of them below .05."""
    uniform = [kstest(row, "uniform").pvalue > 0.01 for row in p]
    assert np.mean(uniform) >= 0.95
    assert 0.04 <= np.mean(p <= 0.05) <= 0.06


@NOVELTY
@pytest.mark.parametrize("calibrate", [False, True])
def test_p_values_are_uniform(novelty, calibrate):
    n_train = 400 if calibrate else 1000
    check_p_values(p_values_of_clean_rows(25, novelty, calibrate, n_train=n_train))


@NOVELTY
def test_false_alarms_with_few_rows_and_many_columns(novelty):
    """200 rows of 10 columns: a training row must look as it would as a new one."""
    alarms = []
    for draw in range(100):
        X = np.random.default_rng(draw).normal(size=(400, 10))
        p = detector(novelty=novelty).fit(X[:200]).p_values(X[200:])
        alarms.append(np.mean(p <= 0.05))
    assert 0.04 <= np.mean(alarms) <= 0.06


@pytest.mark.slow
@NOVELTY
@pytest.mark.parametrize("calibrate", [False, True])
def test_p_values_are_uniform_over_100_splits(novelty, calibrate):
    check_p_values(p_values_of_clean_rows(100, novelty, calibrate, n_train=1000))


@NOVELTY
def test_p_values_of_training_rows_are_their_ranks(rng, novelty):
    """The own copy is out of the count: rank / n among n rows without ties."""
    X = rng.normal(size=(80, 3))
    model = detector(novelty=novelty).fit(X).leave_one_out()
    rank = 80 - np.argsort(np.argsort(model.energy(X), kind="stable"))
    np.testing.assert_allclose(model.p_values(X), rank / 80, atol=1.01 / 80)
    assert model.p_values(X).min() == pytest.approx(1 / 80)


def false_discoveries(n_draws, novelty, calibrate):
    """Return false and true discovery proportions at q = .1, 10% anomalies."""
    proportions = []
    for draw in range(n_draws):
        rng = np.random.default_rng(1000 + draw)
        train, clean = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
        strange = rng.normal(size=(20, 4)) * 0.5 + rng.choice([-6, 6], size=(20, 4))
        rows = np.vstack([rng.normal(size=(180, 4)), strange])
        model = detector(novelty=novelty).fit(train)
        if calibrate:
            model.calibrate(clean)
        calls = model.predict_fdr(rows, q=0.1) == -1
        false = calls[:180].sum() / max(1, calls.sum())
        proportions.append((false, calls[180:].mean()))
    return np.mean(proportions, axis=0)


@NOVELTY
@pytest.mark.parametrize("calibrate", [False, True])
def test_predict_fdr(novelty, calibrate):
    false, found = false_discoveries(30, novelty, calibrate)
    assert false <= 0.11 + 0.02  # one standard error more, with so few draws
    assert found >= 0.9


@pytest.mark.slow
@NOVELTY
@pytest.mark.parametrize("calibrate", [False, True])
def test_predict_fdr_over_200_draws(novelty, calibrate):
    false, found = false_discoveries(200, novelty, calibrate)
    assert false <= 0.11
    assert found >= 0.9


def planted_table(n=300, n_planted=30):
    """Return rows of which the first ones are strange."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    X[:n_planted] += rng.choice([-8, 8], size=(n_planted, 4))
    return X


@pytest.mark.parametrize("rows", [slice(None), slice(5), slice(200, None)])
def test_predict_fdr_refuses_training_rows_that_may_hold_anomalies(rows):
    X = planted_table()
    model = detector().fit(X)
    with pytest.raises(ValueError, match=r"novelty=True.*calibrate\(X_clean\)"):
        model.predict_fdr(X[rows])
    model.calibrate(np.random.default_rng(1).normal(size=(400, 4)))
    assert (model.predict_fdr(X, q=0.1)[:30] == -1).all()


def test_predict_fdr_refuses_a_discrete_training_table_but_no_new_rows():
    """Half of the rows equal others: new rows that equal stored ones are usual."""
    rng = np.random.default_rng(0)
    X, new = rng.poisson(1.0, size=(2, 400, 4)).astype(float)
    model = detector().fit(X)
    assert model.predict_fdr(new).shape == (400,)
    assert (model.predict_fdr(new[:40]) == 1).all()
    with pytest.raises(ValueError, match="400 of the 450 rows of X were in fit"):
        model.predict_fdr(np.vstack([X, new[:50] + 0.5]))


@NOVELTY
@pytest.mark.parametrize(("width", "most"), [(1, 0.08), (2, 0.07), (5, 0.07)])
def test_auto_threshold_on_clean_rows(novelty, width, most):
    """contamination="auto" aims at 5% false alarms; clean rows lose no tail."""
    rates = []
    for draw in range(12):
        rng = np.random.default_rng(draw)
        X = rng.normal(size=(700, width))
        model = detector(novelty=novelty).fit(X[:400])
        rates.append(np.mean(model.predict(X[400:]) == -1))
    assert 0.03 <= np.mean(rates) <= most


def test_auto_threshold_drops_clear_anomalies():
    """10% strange training rows: they are found, and normal ones keep their 5%."""
    false, found = [], []
    for draw in range(10):
        rng = np.random.default_rng(draw)
        X, new = rng.normal(size=(400, 5)), rng.normal(size=(400, 5))
        X[:40] = X[:40] * 0.3 + rng.choice([-6, 6], size=(40, 5))
        model = detector().fit(X)
        found.append(np.mean(model.predict(X[:40]) == -1))
        false.append(np.mean(model.predict(new) == -1))
    assert np.mean(found) >= 0.95
    assert 0.02 <= np.mean(false) <= 0.08


@NOVELTY
@pytest.mark.parametrize(
    ("n", "share"), [(200, 0.1), (100, 0.05), (64, 0.5), (90, 0.3)]
)
def test_contamination_is_the_share_flagged(rng, novelty, n, share):
    X = rng.normal(size=(n, 3))
    calls = detector(novelty=novelty, contamination=share).fit_predict(X)
    assert np.sum(calls == -1) == round(share * n)


def shifted_rows(rng, n):
    """Return training rows, and rows with one column shifted by 6 sd."""
    covariance = np.full((10, 10), 0.5) + 0.5 * np.eye(10)
    X = rng.multivariate_normal(np.zeros(10), covariance, size=500)
    rows = rng.multivariate_normal(np.zeros(10), covariance, size=n)
    column = np.arange(n) % 10
    rows[np.arange(n), column] += 6 * rng.choice([-1, 1], size=n)
    return X, rows, column


@NOVELTY
def test_explain_names_the_shifted_column(rng, novelty):
    X, rows, column = shifted_rows(rng, 40)
    model = detector(novelty=novelty).fit(X)
    contributions = model.explain(rows)
    assert np.mean(contributions.argmax(1) == column) >= 0.95
    difference = model.energy(rows) - model.explain_baseline_
    np.testing.assert_allclose(contributions.sum(1), difference, rtol=1e-6)


@pytest.mark.slow
@NOVELTY
def test_explain_names_the_shifted_column_of_400_rows(rng, novelty):
    X, rows, column = shifted_rows(rng, 400)
    contributions = detector(novelty=novelty).fit(X).explain(rows)
    assert np.mean(contributions.argmax(1) == column) >= 0.95


@NOVELTY
def test_explain_sums_for_training_rows_and_constant_columns(rng, novelty, dtype):
    """Rows with an own copy, and a column that adds nothing."""
    X = np.c_[rng.normal(size=(60, 3)), np.full(60, 7.0)].astype(dtype)
    model = detector(novelty=novelty).fit(X)
    contributions = model.explain(X[:20])
    difference = model.energy(X[:20]) - model.explain_baseline_
    np.testing.assert_allclose(contributions.sum(1), difference, rtol=1e-6, atol=1e-9)
    assert np.abs(contributions[:, 3]).max() == 0


def test_explain_rows_do_not_depend_on_each_other(rng):
    X = rng.normal(size=(60, 3))
    model = detector().fit(X)
    together = model.explain(X[:9])
    np.testing.assert_array_equal(model.explain(X[4:5]), together[4:5])
    np.testing.assert_array_equal(model.explain(X[:9][::-1]), together[::-1])


@NOVELTY
def test_training_rows_leave_their_own_copy_out(rng, novelty):
    """E of a training row ranks as under a fit that never saw the row."""
    X = rng.normal(size=(60, 3))
    own_out = detector(novelty=novelty).fit(X).leave_one_out().energy(X)
    never_seen = np.empty(60)
    for i in range(60):
        others = np.delete(X, i, axis=0)
        never_seen[i] = detector(novelty=novelty).fit(others).energy(X[i : i + 1])[0]
    assert spearmanr(own_out, never_seen).statistic > 0.95
    assert abs(np.median(own_out - never_seen)) < 0.2


@NOVELTY
def test_stored_energy_is_the_energy_of_the_training_rows(rng, novelty):
    X = rng.normal(size=(150, 4))
    model = detector(novelty=novelty).fit(X)
    stored = model.energy_.stored_energy.numpy()
    np.testing.assert_array_equal(model.leave_one_out().energy(X), stored)
    np.testing.assert_array_equal(model.calibration_energy_, np.sort(stored))


@NOVELTY
def test_max_memory(rng, novelty):
    X = rng.normal(size=(300, 3))
    small = detector(novelty=novelty, max_memory=100).fit(X)
    assert small.energy_.rows.shape == (100, 3)
    assert small.calibration_energy_.shape == (100,)
    again = detector(novelty=novelty, max_memory=100).fit(X)
    np.testing.assert_array_equal(small.energy(X), again.energy(X))
    again.set_params(random_state=1).fit(X)
    assert np.any(small.energy(X) != again.energy(X))
    full = detector(novelty=novelty, max_memory=None).fit(X)
    default = detector(novelty=novelty).fit(X)
    np.testing.assert_array_equal(full.energy(X), default.energy(X))
    exact = detector(novelty=novelty, max_memory=300).fit(X)
    np.testing.assert_array_equal(exact.energy(X), default.energy(X))
    assert spearmanr(small.energy(X), default.energy(X)).statistic > 0.8


def test_random_state(rng):
    X = rng.normal(size=(600, 3))
    seeds = [detector().set_params(random_state=s).fit(X).energy(X) for s in [0, 0, 1]]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert np.any(seeds[0] != seeds[2])
    states = [np.random.RandomState(5) for _ in range(2)]
    energies = [detector().set_params(random_state=s).fit(X).energy(X) for s in states]
    np.testing.assert_array_equal(*energies)


@NOVELTY
def test_sample_has_the_moments_of_the_data(rng, novelty):
    mean = np.array([1.0, -50.0, 3.0])
    root = np.array([[1, 0, 0], [8, 6, 0], [0, 0.1, 0.1]])
    X = np.c_[rng.normal(size=(1000, 3)) @ root.T + mean, np.full(1000, 7.5)]
    rows = detector(novelty=novelty).fit(X).sample(5000, random_state=1)
    assert rows.shape == (5000, 4)
    assert np.all(rows[:, 3] == 7.5)
    sd = X[:, :3].std(0)
    error = (rows[:, :3].mean(0) - X[:, :3].mean(0)) / sd
    assert np.abs(error).max() < 0.1
    error = (np.cov(rows[:, :3].T) - np.cov(X[:, :3].T)) / np.outer(sd, sd)
    assert np.abs(error).max() < 0.25


def test_sample_leaves_the_anomalies_out(rng):
    X = rng.normal(size=(200, 3))
    X[:15] += 30 * rng.uniform(1, 2, size=(15, 1))
    rows = detector().fit(X).sample(2000)
    assert np.abs(rows).max() < 10


@NOVELTY
def test_clump_and_lonely_anomalies(rng, novelty):
    """Isolated rows are found in both modes, a clump in training if novelty=False."""
    X = rng.normal(size=(300, 5))
    lonely = rng.normal(size=(5, 5)) * 8
    clump = rng.normal(size=(10, 5)) * 0.05 + 6
    model = detector(novelty=novelty).fit(X if novelty else np.vstack([X, clump]))
    assert np.mean(model.predict(lonely) == -1) >= 0.8
    assert np.all(model.predict(clump) == -1)


def test_scale_of_the_columns_does_not_matter(rng):
    X = rng.normal(size=(120, 3))
    factor, shift = np.array([1e-3, 1.0, 1e6]), np.array([5.0, -2.0, 3e6])
    moved = detector().fit(X * factor + shift).energy(X * factor + shift)
    np.testing.assert_allclose(moved, detector().fit(X).energy(X), rtol=1e-6, atol=1e-6)


def test_order_of_the_columns_does_not_matter(rng):
    X = rng.normal(size=(120, 4))
    turned = detector(novelty=True).fit(X[:, ::-1]).energy(X[:, ::-1])
    expected = detector(novelty=True).fit(X).energy(X)
    np.testing.assert_allclose(turned, expected, rtol=1e-6, atol=1e-6)


def test_explain_and_sample_need_a_fit():
    frame = pd.DataFrame(np.zeros((3, 2)), columns=["a", "b"])
    with pytest.raises(NotFittedError):
        detector().explain(frame)
    with pytest.raises(NotFittedError):
        detector().sample()


def test_sample_after_a_strict_calibration(rng):
    """A threshold below every stored energy leaves the lower half to draw from."""
    model = detector(novelty=True).fit(rng.normal(size=(60, 2)))
    model.offset_ = -float(model.energy_.stored_energy.min()) + 1.0
    assert np.isfinite(model.sample(5)).all()
