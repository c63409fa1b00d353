"""ConditionalRBM: Markov chains, regressions, sequences, and what is refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from skebm import ConditionalRBM
from skebm.energies import (
    BernoulliUnits,
    CategoricalUnits,
    GaussianUnits,
    MixedUnits,
)
from skebm.exceptions import DataDomainError, NotMixedWarning

TRANSITIONS = np.array([[0.8, 0.15, 0.05], [0.1, 0.2, 0.7], [0.3, 0.6, 0.1]])
RARE = np.array([[0.7, 0.299, 0.001], [0.001, 0.7, 0.299], [0.299, 0.001, 0.7]])


def chain(P, n, seed=0):
    """Return a path of a chain whose next state follows P[last states], (n, 1)."""
    rng, order = np.random.default_rng(seed), P.ndim - 1
    path = [0] * order
    for u in rng.random(n):
        p = P[tuple(path[-order:])]
        path.append(int((u > p.cumsum()).sum()))
    return np.array(path[order:])[:, None]


def stationary(P):
    values, vectors = np.linalg.eig(P.T)
    pi = vectors[:, values.real.argmax()].real
    return pi / pi.sum()


def entropy_rate(P):
    return -(stationary(P)[:, None] * P * np.log(P)).sum()


@pytest.fixture(scope="module")
def fitted():
    return ConditionalRBM(n_lags=1, random_state=0).fit(chain(TRANSITIONS, 5000))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_markov_chain_reaches_its_entropy_rate(fitted):
    test = chain(TRANSITIONS, 5000, seed=1)
    states = np.arange(3)[:, None]
    Q = fitted.next_probabilities(states, lengths=[1, 1, 1])
    likelihood = (stationary(TRANSITIONS)[:, None] * TRANSITIONS * np.log(Q)).sum()
    assert -likelihood == pytest.approx(entropy_rate(TRANSITIONS), abs=0.02)
    assert -fitted.score(test) == pytest.approx(entropy_rate(TRANSITIONS), abs=0.02)
    np.testing.assert_allclose(Q, TRANSITIONS, atol=0.03)


def test_injected_rare_transitions_stand_out(rng):
    model = ConditionalRBM(n_lags=1, n_iter=40, random_state=0)
    model.fit(chain(RARE, 5000))
    test = chain(RARE, 4000, seed=1)
    places = 2 + 39 * np.arange(100)
    test[places, 0] = RARE.argmin(1)[test[places - 1, 0]]
    usual = np.setdiff1d(np.arange(4000), np.r_[places, places + 1])
    energy = model.energy(test)
    rows = np.r_[places, usual]
    assert roc_auc_score(np.isin(rows, places), energy[rows]) >= 0.99
    assert (model.predict(test)[places] == -1).all()
    assert (model.predict(test)[usual] == -1).mean() < 0.06
    assert model.p_values(test)[places].max() < 0.01


def test_second_order_chain_needs_two_lags():
    """The next state is the sum of the last two, mod 3, nine times in ten.

    One row back says nothing about the next one: the first-order rate is log 3. Two
    rows back say something only together, so that hidden bits are needed.
    """
    sums = np.add.outer(np.arange(3), np.arange(3)) % 3
    P = np.where(sums[:, :, None] == np.arange(3), 0.9, 0.05)
    rate = -(0.9 * np.log(0.9) + 0.1 * np.log(0.05))
    X, test = chain(P, 3000), chain(P, 3000, seed=1)
    scores = {
        (lags, hidden): -ConditionalRBM(hidden, n_lags=lags, n_iter=40, random_state=0)
        .fit(X)
        .score(test)
        for lags, hidden in [(1, 10), (2, 0), (2, 10)]
    }
    assert scores[1, 10] == pytest.approx(np.log(3), abs=0.02)
    assert scores[2, 0] == pytest.approx(np.log(3), abs=0.02)
    assert scores[2, 10] == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize(
    ("units", "n_components"),
    [("bernoulli", 0), ("categorical", 0), ("categorical", 10)],
)
def test_one_bit_given_features_is_logistic_regression(rng, units, n_components):
    U = rng.normal(size=(2000, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    p = 1 / (1 + np.exp(-(U @ [1.0, -0.1, 5.0] - 4)))
    y = (rng.random(2000) < p).astype(int)
    exact = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(U, y)
    model = ConditionalRBM(n_components, units=units, n_iter=100, random_state=0)
    model.fit(y[:, None], context=U)
    found = model.next_probabilities(context=U)
    error = np.abs(found - exact.predict_proba(U))
    assert error.mean() < 0.01
    if n_components == 0:
        assert error.max() < 0.004
        # Codes have a coefficient for each of the two.
        F, b = model.coef_visible_, model.intercept_visible_
        F, b = (F[1:] - F[:1], b[1] - b[0]) if units == "categorical" else (F, b[0])
        scale = U.std(0)
        np.testing.assert_allclose(F[0] * scale, exact.coef_[0] * scale, atol=0.01)
        middle = F[0] @ U.mean(0) + b
        wanted = exact.coef_[0] @ U.mean(0) + exact.intercept_[0]
        assert middle == pytest.approx(wanted, abs=0.01)


def test_without_a_context_it_is_an_rbm(rng):
    """Three bits with even parity, and no context: a density over rows."""
    X = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])[rng.integers(0, 4, 2000)]
    model = ConditionalRBM(units="bernoulli", n_iter=120, random_state=0).fit(X)
    assert model.n_context_ == 0
    states = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    p = np.exp(model.score_samples(states))
    assert p.sum() == pytest.approx(1.0, abs=1e-6)
    assert p[states.sum(1) % 2 == 0].sum() > 0.9
    assert model.score(X) == pytest.approx(-np.log(4), abs=0.1)


def test_autoregression_of_real_columns(rng):
    """x_t = 0.8 x_{t-1} + noise: entropy of the noise, and 0.8, in the units of X."""
    noise = rng.normal(size=(3000, 2)) * [1.0, 0.1]
    x = np.zeros((3000, 2))
    for t in range(1, 3000):
        x[t] = 0.8 * x[t - 1] + noise[t]
    model = ConditionalRBM(2, units="gaussian", n_lags=1, n_iter=60, random_state=0)
    model.fit(x)
    exact = norm.logpdf(x[1:], 0.8 * x[:-1], [1.0, 0.1]).sum(1).mean()
    assert model.score(x) == pytest.approx(exact, abs=0.02)
    assert np.diag(model.coef_visible_)[:2] == pytest.approx([0.8, 0.8], abs=0.04)


@pytest.mark.slow
def test_hidden_bits_make_two_modes_around_a_regression(rng):
    u = rng.normal(size=(4000, 1))
    x = rng.choice([-2.0, 2.0], (4000, 1)) + rng.normal(size=(4000, 1)) * 0.5
    model = ConditionalRBM(units="gaussian", random_state=0).fit(x + 3 * u, context=u)
    pair = [norm.logpdf(x, mode, 0.5) for mode in (-2, 2)]
    exact = (np.logaddexp(*pair) - np.log(2)).mean()
    assert model.score(x + 3 * u, context=u) == pytest.approx(exact, abs=0.06)


def test_contrastive_divergence_where_rows_are_too_many(rng):
    """Ten bits that each follow the context: independent logistic regressions."""
    U = rng.normal(size=(1500, 2))
    p = 1 / (1 + np.exp(-U @ rng.normal(size=(2, 10))))
    X = (rng.random((1500, 10)) < p).astype(int)
    model = ConditionalRBM(4, units="bernoulli", n_iter=120, random_state=0)
    model.fit(X, context=U)
    assert "loss" in model.history_
    exact = np.log(np.where(X == 1, p, 1 - p)).sum(1).mean()
    assert model.score(X, context=U) == pytest.approx(exact, abs=0.06)


def test_sequences_do_not_see_each_other(fitted):
    X, lengths = chain(TRANSITIONS, 60), [10, 1, 49]
    together = fitted.score_samples(X, lengths=lengths)
    parts = np.split(X, [10, 11])
    apart = np.concatenate([fitted.score_samples(part) for part in parts])
    np.testing.assert_array_equal(together, apart)
    single = fitted.score_samples(X)
    changed = np.flatnonzero(single != together)
    assert set(changed) <= {10, 11}
    assert len(changed) > 0


def test_rows_are_scored_by_the_next_probabilities(fitted):
    X = chain(TRANSITIONS, 30)
    starts = fitted.next_probabilities()
    after = np.concatenate([fitted.next_probabilities(X[:t]) for t in range(1, 30)])
    p = np.concatenate([starts, after])
    np.testing.assert_allclose(p.sum(1), 1.0)
    np.testing.assert_allclose(
        fitted.score_samples(X), np.log(p[np.arange(30), X[:, 0]]), rtol=1e-5
    )
    ends = fitted.next_probabilities(X, lengths=[10, 20])
    np.testing.assert_allclose(ends, [p[10], fitted.next_probabilities(X)[0]])


def test_learns_how_sequences_start(rng):
    """Sequences start with 2, and go round: 2, 0, 1, 2, ..."""
    X = np.tile([[2], [0], [1], [2]], (200, 1))
    model = ConditionalRBM(n_lags=1, n_iter=100, random_state=0)
    model.fit(X, lengths=[4] * 200)
    assert model.next_probabilities()[0, 2] > 0.95
    assert model.next_probabilities([[2]])[0, 0] > 0.95


def test_sampled_sequences_follow_the_chain(fitted):
    drawn = fitted.sample(1500, random_state=1)[:, 0].astype(int)
    counts = np.zeros((3, 3))
    np.add.at(counts, (drawn[:-1], drawn[1:]), 1)
    P = counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(P, TRANSITIONS, atol=0.08)
    firsts = [fitted.sample(prefix=[[1]], random_state=i)[0, 0] for i in range(200)]
    assert np.mean(np.equal(firsts, 2)) == pytest.approx(0.7, abs=0.12)


def test_rows_are_drawn_each_from_its_context(rng):
    u = rng.normal(size=(1000, 1))
    X = (3 * u + rng.normal(size=(1000, 1))).round(6)
    model = ConditionalRBM(0, units="gaussian", n_iter=200, random_state=0)
    model.fit(X, context=u)
    drawn = model.sample(1000, context=u)
    assert np.std(drawn - 3 * u) == pytest.approx(1.0, abs=0.1)
    assert model.sample(500, context=[[2.0]]).mean() == pytest.approx(6.0, abs=0.3)


def test_context_and_lags_together(rng):
    """A chain that turns round when the context says so; neither alone tells."""
    turn = rng.integers(0, 2, 4000)
    X = np.zeros((4000, 1), int)
    for t in range(1, 4000):
        step = 1 if turn[t] else 2
        X[t] = (X[t - 1] + step) % 3
    model = ConditionalRBM(n_lags=1, n_iter=40, random_state=0)
    model.fit(X, context=turn[:, None])
    assert model.score(X, context=turn[:, None]) > -0.05
    p = model.next_probabilities([[0]], context=[[1]])
    assert p[0, 1] > 0.95
    rows = model.sample(50, context=np.ones((50, 1)))[:, 0]
    assert (np.diff(rows) % 3 == 1).mean() > 0.9


def test_columns_of_several_kinds(rng):
    code = rng.integers(0, 3, 800)
    X = np.column_stack([code, 5.0 * code + rng.normal(size=800), code == 2])
    kinds = [(CategoricalUnits(4), 1), (GaussianUnits(), 1), (BernoulliUnits(), 1)]
    model = ConditionalRBM(4, units=MixedUnits(kinds), n_iter=100, random_state=0)
    model.fit(X)
    rows = model.sample(300)
    assert set(rows[:, 0]) <= {0, 1, 2, 3}
    assert set(rows[:, 2]) <= {0, 1}
    assert np.corrcoef(rows[:, 0], rows[:, 1])[0, 1] > 0.5
    odd = [[0, 10.0, 1], [3, 10.0, 0]]
    assert model.score_samples(odd).max() < np.quantile(model.score_samples(X), 0.1)


def test_explanations_add_up_and_name_the_lags():
    frame = pd.DataFrame(chain(TRANSITIONS, 300), columns=["action"])
    u = pd.DataFrame({"hour": np.arange(300.0) % 24})
    model = ConditionalRBM(n_lags=2, n_iter=20, random_state=0)
    model.fit(frame, context=u)
    why = model.explain(frame[:9], u[:9])
    assert list(why.columns) == ["action", "action, lag 1", "action, lag 2", "hour"]
    np.testing.assert_allclose(
        why.to_numpy().sum(1),
        model.energy(frame[:9], u[:9]) - model.explain_baseline_,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match=r"columns \['minute'\], but fit saw"):
        model.energy(frame, u.rename(columns={"hour": "minute"}))
    assert list(model.sample(3, context=u[:1]).columns) == ["action"]


def test_context_in_other_units_changes_nothing(rng):
    u = rng.normal(size=(500, 2))
    X = (rng.random((500, 1)) < 1 / (1 + np.exp(-u[:, :1]))).astype(int)
    model = ConditionalRBM(3, n_iter=30, random_state=0)
    before = model.fit(X, context=u).score_samples(X, u)
    F = model.coef_visible_
    after = model.fit(X, context=u * 2.0**40).score_samples(X, u * 2.0**40)
    np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(model.coef_visible_ * 2.0**40, F)


def test_early_stopping_keeps_the_best_held_out_likelihood(rng):
    U = rng.normal(size=(120, 20))
    X = rng.integers(0, 2, (120, 1))
    model = ConditionalRBM(early_stopping=True, validation_fraction=0.3, random_state=0)
    model.fit(X, context=U)
    assert model.n_iter_ < 500
    assert len(model.calibration_energy_) == 36
    assert model.calibration_energy_.mean() == pytest.approx(
        min(model.history_["valid_loss"]), abs=1e-3
    )


def test_checkpoint_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    X = chain(TRANSITIONS, 600)
    settings = {"n_lags": 1, "n_iter": 6, "random_state": 0}
    expected = ConditionalRBM(**settings).fit(X).score_samples(X)
    path = tmp_path / "run"
    model = ConditionalRBM(checkpoint=str(path), **settings)
    import skebm.trainer

    epoch, calls = skebm.trainer._Run._epoch, []

    def interrupted(run):
        calls.append(run)
        if len(calls) == 4:
            raise RuntimeError("power cut")
        return epoch(run)

    monkeypatch.setattr(skebm.trainer._Run, "_epoch", interrupted)
    with pytest.raises(RuntimeError, match="power cut"):
        model.fit(X)
    np.testing.assert_array_equal(model.fit(X).score_samples(X), expected)
    assert len(calls) == 4 + 3


@pytest.mark.parametrize(
    ("units", "value", "message"),
    [
        ("categorical", 0.5, r"codes 0, 1, 2, ... in column 0; got 0.5. Encode with"),
        ("categorical", -1.0, r"codes 0, 1, 2, ... in column 0; got -1"),
        ("categorical", 7.0, r"codes 0 to 2 in column 0; got 7. Pass units=Cat"),
        ("bernoulli", 2.0, r"0 or 1 in column 0; got 2. Pass units='categorical'"),
    ],
)
def test_values_outside_the_domain(units, value, message):
    X = np.array([[0.0], [1.0], [0.0], [1.0]])
    if units == "categorical":
        X[3] = 2
    model = ConditionalRBM(units=units, n_iter=1).fit(X)
    with pytest.raises(DataDomainError, match=message):
        model.energy([[value]])
    if value != 7:
        with pytest.raises(DataDomainError, match=message):
            model.fit(np.vstack([X, [[value]]]))


def test_room_for_codes_that_the_rows_lack():
    X = np.tile([[0], [1]], (100, 1))
    model = ConditionalRBM(units=CategoricalUnits(4), random_state=0).fit(X)
    p = np.exp(model.score_samples([[0], [1], [2], [3]]))
    assert p.sum() == pytest.approx(1.0, abs=1e-6)
    assert np.all((p[2:] > 1e-4) & (p[2:] < 0.02))


def test_what_sequences_and_contexts_refuse(fitted):
    X = chain(TRANSITIONS, 20)
    U = np.zeros((20, 2))
    for lengths in ([10, 9], [20, 0], [[20]], [10.0, 10.0], []):
        with pytest.raises(ValueError, match="integers >= 1 that sum to the 20 rows"):
            fitted.energy(X, lengths=lengths)
    with pytest.raises(ValueError, match="a context of 2 columns, but fit saw 0"):
        fitted.energy(X, U)
    plain = ConditionalRBM(n_iter=1).fit(X, context=U)
    with pytest.raises(ValueError, match="a context of 0 columns, but fit saw 2"):
        plain.energy(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        plain.energy(X, U[:5])
    with pytest.raises(ValueError, match="Input context contains NaN"):
        plain.energy(X, U * np.nan)
    with pytest.raises(ValueError, match="lengths with n_lags=0"):
        plain.fit(X, context=U, lengths=[20])
    with pytest.raises(ValueError, match=r"fit\(X, context=...\)"):
        plain.fit(X, U)
    plain.fit(X, context=U)
    with pytest.raises(ValueError, match="a prefix with n_lags=0"):
        plain.sample(context=U[:1], prefix=X)
    with pytest.raises(ValueError, match="Got X with n_lags=0"):
        plain.next_probabilities(X, context=U[:1])
    wide = ConditionalRBM(n_iter=1).fit(np.hstack([X, X]))
    with pytest.raises(ValueError, match="one column of codes or bits"):
        wide.next_probabilities()


def test_annealed_machines_score_and_calibrate(rng):
    """13 hidden and 14 visible bits: the threshold comes from 200 rows."""
    X = rng.integers(0, 2, (400, 14))
    model = ConditionalRBM(13, units="bernoulli", n_iter=40, random_state=0).fit(X)
    assert len(model.calibration_energy_) == 200
    assert model.score(X) == pytest.approx(-14 * np.log(2), abs=0.2)
    assert model.sample(5).shape == (5, 14)


@pytest.fixture(scope="module")
def three_bits():
    """Bits that lean on each other and on a context, with every state of them."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(3000, 1))
    first = rng.random(3000) < 1 / (1 + np.exp(-u[:, 0]))
    second = rng.random(3000) < np.where(first, 0.8, 0.3)
    third = rng.random(3000) < np.where(second, 0.2, 0.7)
    X = np.column_stack([first, second, third]).astype(float)
    model = ConditionalRBM(0, units="bernoulli", n_iter=30, random_state=0)
    states = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    return model.fit(X, context=u), states.astype(float)


@pytest.mark.parametrize("where", [-1.0, 1.5])
def test_given_columns_draw_the_others_from_their_conditional(three_bits, where):
    """Enumerated: p(v | v_1 = 1; u)."""
    model, states = three_bits
    p = np.exp(model.score_samples(states, context=np.full((8, 1), where)))
    assert p.sum() == pytest.approx(1.0, abs=1e-6)
    fits = states[:, 1] == 1
    expected = p[fits] @ states[fits] / p[fits].sum()
    drawn = model.sample(6000, given={1: 1}, context=[[where]])
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.03)


def test_given_columns_hold_in_sequences_and_contexts_of_their_own(three_bits, rng):
    model, _ = three_bits
    u = np.repeat([[-3.0], [3.0]], 400, axis=0)
    drawn = model.sample(800, given={2: 0}, context=u)
    assert not drawn[:, 2].any()
    assert drawn[400:, 0].mean() > drawn[:400, 0].mean() + 0.4
    X = np.column_stack([rng.integers(0, 2, 300), rng.normal(5, 2, 300)])
    units = MixedUnits([(BernoulliUnits(), 1), (GaussianUnits(), 1)])
    lagged = ConditionalRBM(1, units=units, n_iter=2, random_state=0).fit(X)
    for value in (0.1, 6.5, 7.3):
        assert (lagged.sample(5, given={1: value})[:, 1] == value).all()
    with pytest.raises(ValueError, match="expected finite values for some"):
        lagged.sample(given={0: 1, 1: 2.0})


def test_diagnosis_has_the_moments_of_one_context(three_bits, fitted):
    model, states = three_bits
    p = np.exp(model.score_samples(states, context=np.full((8, 1), 0.7)))
    table = model.diagnose(400, context=[[0.7]])
    assert table.index.tolist() == [0, 1, 2, "energy"]
    np.testing.assert_allclose(table["mean"][:3].to_numpy(float), p @ states, atol=0.03)
    assert table["rhat"].max() < 1.05
    mean = TRANSITIONS @ np.arange(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotMixedWarning)
        after = fitted.diagnose(prefix=[[1]])["mean"].iloc[0]
    assert after == pytest.approx(mean[1], abs=0.15)
    with pytest.raises(ValueError, match="Got a prefix with n_lags=0"):
        model.diagnose(prefix=[[1, 0, 1]], context=[[0.0]])
