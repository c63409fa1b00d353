"""EnergyContrastiveEncoder: its energies, its bound, what its features are worth."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skebm import EnergyContrastiveEncoder
from skebm.exceptions import InterruptedFitWarning
from skebm.objectives import FeatureCorruption, GaussianNoise
from skebm.training.learner import Learner


def clusters(n, rng, n_groups=3):
    """Return rows around corners of a cube in 12 columns, and which corner."""
    corners = 2.0 * (np.random.default_rng(5).random((n_groups, 12)) < 0.5)
    group = rng.integers(n_groups, size=n)
    return corners[group] + 0.8 * rng.normal(size=(n, 12)), group


@pytest.fixture(scope="module")
def X():
    return clusters(400, np.random.default_rng(0))[0]


def tiny(**params):
    settings = {"n_components": 16, "hidden_layer_sizes": (32,), "max_iter": 60}
    settings |= {"n_projection": 16, "batch_size": 100, "random_state": 0}
    return EnergyContrastiveEncoder(**(settings | params))


@pytest.fixture(scope="module")
def fitted(X):
    return tiny().fit(X)


def test_energy_is_the_cosine_of_embedded_rows(fitted, X):
    z = torch.from_numpy((X - fitted.location_) / fitted.scale_)
    f = fitted.energy_.embed(z).numpy()
    np.testing.assert_allclose((f**2).sum(1), 1)
    expected = -(f[:200] * f[200:]).sum(1) / 0.2
    np.testing.assert_allclose(fitted.energy(X[:200], X[200:]), expected, atol=1e-9)
    np.testing.assert_allclose(fitted.energy(X, X), -5.0)


def test_views_go_with_their_rows(fitted, X):
    """A row with one entry changed is nearer than a row of another group."""
    view = X.copy()
    view[:, 3] = X[::-1, 3]
    _, group = clusters(400, np.random.default_rng(0))
    others = X[[np.flatnonzero(group != g)[0] for g in group]]
    assert np.mean(fitted.energy(X, view) < fitted.energy(X, others)) > 0.95


def test_score_is_a_bound_below_the_logarithm_of_the_batch(fitted, X):
    new, _ = clusters(300, np.random.default_rng(1))
    untrained = tiny(max_iter=1, learning_rate=1e-9).fit(X)
    assert untrained.score(new) + 0.3 < fitted.score(new) < math.log(100)
    assert fitted.score(new) == fitted.score(new)
    assert fitted.score(new[:1]) == 0.0
    loss, bound = fitted.history_["loss"], fitted.history_["bound"]
    np.testing.assert_allclose(loss + bound, math.log(100), rtol=1e-5)
    assert fitted.n_iter_ == len(loss) == 60


def test_features_are_scaled_and_named(fitted, X, dtype):
    both = fitted.transform(X.astype(dtype))
    assert both.dtype == dtype
    assert both.shape == (400, 16 + 12)
    features, columns = both[:, :16], both[:, 16:]
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-4)
    assert features.var(0).sum() == pytest.approx(12, rel=1e-4)
    z = (X - fitted.location_) / fitted.scale_
    np.testing.assert_allclose(columns, z, atol=1e-4)
    assert (features.std(0) > 0).sum() > 8
    alone = tiny(passthrough=False).fit(X.astype(dtype))
    assert alone.transform(X.astype(dtype)).shape == (400, 16)
    assert list(fitted.get_feature_names_out())[::27] == [
        "energycontrastiveencoder0",
        "energycontrastiveencoder27",
    ]
    frame = tiny(max_iter=1).set_output(transform="pandas").fit_transform(X)
    assert isinstance(frame, pd.DataFrame)


def test_rows_alone_or_in_a_batch_have_the_same_bits(fitted, X):
    features, e = fitted.transform(X), fitted.energy(X, X[::-1])
    for i in [0, 63, 64, 399]:
        np.testing.assert_array_equal(fitted.transform(X[i : i + 1])[0], features[i])
        assert fitted.energy(X[i : i + 1], X[399 - i][None])[0] == e[i]


@pytest.mark.slow
def test_few_labels_go_further_on_digits():
    """Ten labels of each digit: features beside the columns against the columns."""
    X, y = load_digits(return_X_y=True)
    encoder = EnergyContrastiveEncoder(random_state=0).fit(X[:900])
    gains = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(900)
        few = np.concatenate([order[y[order] == digit][:10] for digit in range(10)])
        right = []
        for part in (slice(256, None), slice(None)):
            rows, new = (encoder.transform(Z)[:, part] for Z in (X[few], X[900:]))
            linear = LogisticRegression(max_iter=3000).fit(rows, y[few])
            right.append(linear.score(new, y[900:]))
        gains.append(right[1] - right[0])
    assert np.mean(gains) > 0.005


def test_augmentations(X):
    named = tiny(augmentation="noise", max_iter=3).fit(X)
    value = tiny(augmentation=GaussianNoise(0.5), max_iter=3).fit(X)
    np.testing.assert_array_equal(named.transform(X), value.transform(X))
    other = tiny(augmentation=FeatureCorruption(0.2), max_iter=3).fit(X)
    assert np.any(other.transform(X) != tiny(max_iter=3).fit(X).transform(X))
    tiny(augmentation=lambda x, generator: x.flip(1), max_iter=1).fit(X)
    with pytest.raises(ValueError, match="views of shape"):
        tiny(augmentation=lambda x, generator: x[1:], max_iter=1).fit(X)


def test_labels_are_ignored_and_pipelines_work(X):
    y = X[:, 0] > 1
    plain = tiny(max_iter=2).fit(X)
    np.testing.assert_array_equal(
        plain.transform(X), tiny(max_iter=2).fit(X, y).transform(X)
    )
    pipeline = make_pipeline(tiny(max_iter=2), LogisticRegression()).fit(X, y)
    assert pipeline.score(X, y) > 0.7


def test_pairs_need_equal_lengths(fitted, X):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.energy(X, X[1:])
    with pytest.raises(ValueError, match="expecting 12 features"):
        fitted.energy(X, X[:, 1:])


def test_huge_values_stay_finite(fitted, X, dtype):
    rows = X[:2].astype(dtype)
    rows[0] = 1e30 if dtype == np.float32 else 1.7e308
    assert np.isfinite(fitted.transform(rows)).all()
    assert np.isfinite(fitted.energy(rows, rows[::-1])).all()


def test_ctrl_c_keeps_the_last_whole_epoch(monkeypatch, X):
    expected = tiny(max_iter=60).fit(X)
    step, steps = Learner._step, []

    def stopped(self, *args):
        steps.append(self)
        if len(steps) == 11:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Learner, "_step", stopped)
    with pytest.warns(InterruptedFitWarning, match="epoch 2") as caught:
        encoder = tiny(max_iter=60).fit(X)
    assert caught[0].filename == __file__
    assert encoder.n_iter_ == 2
    np.testing.assert_array_equal(
        encoder.history_["loss"], expected.history_["loss"][:2]
    )
    assert np.isfinite(encoder.transform(X)).all()


def test_checkpoint_same_seed_and_pickle(monkeypatch, X, tmp_path):
    expected = tiny(max_iter=4).fit(X)
    first = tiny(max_iter=4, checkpoint=tmp_path / "fit").fit(X)
    monkeypatch.setattr(Learner, "_step", None)  # nothing is left to train
    again = tiny(max_iter=4, checkpoint=tmp_path / "fit").fit(X)
    for other in (first, again, pickle.loads(pickle.dumps(expected))):
        np.testing.assert_array_equal(other.transform(X), expected.transform(X))


def hard_tables():
    """Return tables that teach an encoder little: noise, few rows, one column."""
    rng = np.random.default_rng(0)
    return {
        "noise": rng.normal(size=(90, 3)),
        "few": rng.normal(size=(6, 2)),
        "one": rng.normal(size=(100, 1)),
        "rare": (rng.random((100, 3)) < 0.1).astype(float),
        "tails": rng.standard_cauchy((100, 5)),
        "equal": np.ones((50, 3)),
        "wine": load_wine().data,
        "digits": load_digits().data[:200],
    }


@pytest.mark.parametrize("table", [name for name in hard_tables() if name != "equal"])
@pytest.mark.parametrize("rate", [1e2, 1e8])
def test_a_learning_rate_that_teaches_nothing_is_told(table, rate):
    """The loss stays near log n, so that its growth tells nothing."""
    encoder = tiny(max_iter=5, learning_rate=rate)
    with pytest.warns(UserWarning, match=r"nats.*Lower learning_rate"):
        encoder.fit(hard_tables()[table])


@pytest.mark.parametrize("rate", [1e-9, 1e-3, 1e-2])
@pytest.mark.parametrize("table", hard_tables())
def test_a_hard_table_is_not_blamed_on_the_learning_rate(table, rate):
    """Warnings are errors: at the default rate, slower and ten times faster."""
    tiny(max_iter=30, learning_rate=rate).fit(hard_tables()[table])
