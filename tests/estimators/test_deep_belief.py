"""DeepBeliefNetwork: bounds against sums over all states, digits."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit

from skebm import DeepBeliefNetwork
from skebm.exceptions import DataDomainError
from skebm.partition import LayerSum
from tests.energies.machines import bits
from tests.estimators.test_deep_boltzmann import conditional_means, stripes


@pytest.fixture(scope="module")
def rows():
    return stripes(600, np.random.default_rng(0))


@pytest.fixture(scope="module")
def fitted(rows):
    return DeepBeliefNetwork((5, 6), n_iter=150, random_state=0).fit(rows)


def true_log_likelihoods(fitted):
    """Return log p(v) of all v, by sums over both hidden layers."""
    bottom, top = fitted.energy_.machines
    v, h = bits(bottom.layer.n_features), bits(bottom.n_hidden)
    with torch.no_grad():
        fields = bottom.visible_fields(h)
        given = v @ fields.T - torch.nn.functional.softplus(fields).sum(1)
        log_p = (given - top(h)).logsumexp(1) - LayerSum()(top).value
    return v.numpy(), log_p.numpy()


def exact_bound(fitted, v):
    """Return the mean over q(h1 | v) of log p(v, h1) / q, by a sum over h1."""
    bottom, top = fitted.energy_.machines
    x, h = torch.from_numpy(v), bits(bottom.n_hidden)
    softplus = torch.nn.functional.softplus
    with torch.no_grad():
        fields, up = bottom.visible_fields(h), bottom.hidden_fields(x)
        joint = x @ fields.T - softplus(fields).sum(1) - top(h)
        log_q = up @ h.T - softplus(up).sum(1)[:, None]
        found = (log_q.exp() * (joint - log_q)).sum(1) - LayerSum()(top).value
    return found.numpy()


def test_score_is_below_the_likelihood_and_above_the_plain_bound(fitted, rows):
    """Over the law of the model, so that the noise of the draws averages out."""
    v, log_p = true_log_likelihoods(fitted)
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1.0, abs=1e-6)
    score, plain = fitted.score_samples(v), exact_bound(fitted, v)
    assert (plain <= log_p + 1e-9).all()
    assert p @ plain - 0.02 < p @ score < p @ log_p + 0.02


def test_second_layer_raises_the_bound():
    """From the likelihood of the first RBM, where it starts turned upside down."""
    X = (load_digits().data[:700] >= 8).astype(float)
    network = DeepBeliefNetwork((8, 64), n_iter=200, random_state=0).fit(X)
    bottom = network.energy_.machines[0]
    with torch.no_grad():
        start = -bottom(torch.from_numpy(X)).mean().item() - LayerSum()(bottom).value
    assert exact_bound(network, X).mean() > start + 0.005


def test_upper_layers_start_upside_down(rows):
    """Without a step worth the name the bound is the likelihood of the first RBM."""
    still = DeepBeliefNetwork((4, 7), n_iter=1, learning_rate=1e-9, random_state=0).fit(
        rows
    )
    bottom, top = still.energy_.machines
    assert torch.equal(top.weight[:6].float(), bottom.weight.T.float())
    assert top.weight[6].abs().max() < 0.1
    with torch.no_grad():
        alone = -bottom(torch.from_numpy(rows)) - LayerSum()(bottom).value
    np.testing.assert_allclose(still.score_samples(rows), alone.numpy(), atol=0.05)


def test_one_layer_is_an_rbm_with_an_exact_score(rows):
    single = DeepBeliefNetwork(5, n_iter=150, random_state=0).fit(rows)
    assert np.exp(single.score_samples(bits(6).numpy())).sum() == pytest.approx(
        1.0, abs=1e-5
    )
    row = np.array([1.0, *[np.nan] * 5])
    drawn = single.sample(4000, given={0: 1})
    np.testing.assert_allclose(drawn.mean(0), conditional_means(single, row), atol=0.03)


def test_draws_have_the_law_of_the_network(fitted):
    v, log_p = true_log_likelihoods(fitted)
    p = np.exp(log_p)
    np.testing.assert_allclose(fitted.sample(6000).mean(0), p @ v, atol=0.03)
    fits = (v[:, 0] == 1) & (v[:, 2] == 0)
    expected = p[fits] @ v[fits] / p[fits].sum()
    drawn = fitted.sample(6000, given={0: 1, 2: 0})
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.04)
    assert set(np.unique(drawn)) == {0.0, 1.0}


def test_weights_and_features_are_those_of_the_layers(fitted, rows):
    assert [w.shape for w in fitted.coefs_] == [(6, 5), (5, 6)]
    assert [b.shape for b in fitted.intercepts_] == [(6,), (5,), (6,)]
    assert len(fitted.histories_) == 2
    features, x = fitted.transform(rows), rows
    for rbm in fitted.energy_.machines:
        fields = x @ rbm.weight.numpy().T + rbm.hidden_bias.numpy()
        x = 1 / (1 + np.exp(-fields))
    np.testing.assert_allclose(features, x, atol=1e-6)
    assert list(fitted.get_feature_names_out())[:1] == ["deepbeliefnetwork0"]
    assert fitted.transform(rows.astype(np.float32)).dtype == np.float32


def test_three_layers(rows):
    fitted = DeepBeliefNetwork((4, 6, 4), n_iter=20, random_state=0).fit(rows)
    assert len(fitted.coefs_) == 3
    assert fitted.sample(3).shape == (3, 6)
    assert fitted.score(rows) > -6 * np.log(2)


def test_early_stopping_holds_rows_out(rows):
    fitted = DeepBeliefNetwork(
        (4, 6), n_iter=30, early_stopping=True, random_state=0
    ).fit(rows)
    assert len(fitted.calibration_energy_) == 60
    assert all("valid_loss" in history for history in fitted.histories_)


@pytest.mark.parametrize("sizes", [(), (3, 0), 0])
def test_bad_layers_are_refused(rows, sizes):
    with pytest.raises(ValueError, match=r"hidden_layer_sizes|n_hidden"):
        DeepBeliefNetwork(sizes).fit(rows)


def test_values_outside_are_refused(fitted, rows):
    with pytest.raises(DataDomainError, match=r"X in \[0, 1\]"):
        fitted.score_samples(2 * rows)


@pytest.mark.slow
def test_probe_of_digits_is_at_least_that_of_raw_pixels():
    """Logistic regression with a penalty chosen by folds, the same way for both."""
    X, y = load_digits(return_X_y=True)
    X = (X >= 8).astype(float)
    found = []
    for train, test in ShuffleSplit(5, test_size=0.2, random_state=0).split(X):
        network = DeepBeliefNetwork(random_state=0).fit(X[train])
        probe = GridSearchCV(
            LogisticRegression(max_iter=2000), {"C": [0.1, 1.0, 10.0]}, cv=3
        )
        scores = [
            probe.fit(f(X[train]), y[train]).score(f(X[test]), y[test])
            for f in (network.transform, np.asarray)
        ]
        found.append(scores)
    features, raw = np.mean(found, 0)
    assert features >= raw
    assert features > 0.93
    # 16 hidden bits alone reach about -18.1.
    assert network.score(X[test]) > -17.3


def test_diagnosis_is_that_of_the_top_machine(fitted, rows):
    """Against the sum over its states; with one layer, of the columns."""
    top = fitted.energy_.top
    states = bits(5)
    with torch.no_grad():
        p = (-top(states)).softmax(0)
    table = fitted.diagnose(400)
    assert table.index.tolist() == [*(f"hidden{j}" for j in range(5)), "energy"]
    expected = (p @ states).numpy()
    np.testing.assert_allclose(table["mean"][:5].to_numpy(float), expected, atol=0.04)
    frame = pd.DataFrame(rows, columns=list("abcdef"))
    single = DeepBeliefNetwork(4, n_iter=2, random_state=0).fit(frame)
    assert single.diagnose(20).index.tolist() == [*"abcdef", "energy"]
