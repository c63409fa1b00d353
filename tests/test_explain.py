"""Contributions: games whose Shapley values are known, and the law of the sum."""

import numpy as np
import pandas as pd
import pytest

from skebm import explain
from skebm.explain import row_picker, shapley_contributions


def contributions(energy, X, references, seed=0):
    return shapley_contributions(
        energy,
        row_picker(X, references),
        n_rows=len(X),
        n_features=X.shape[1],
        n_references=len(references),
        seed=seed,
    )


def rows(n, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def tangled(X):
    return np.sin(X).prod(1) + np.exp(0.3 * X[:, 0] * X[:, 1]) + X[:, -1] ** 3


@pytest.mark.parametrize("n_references", [1, 7])
def test_additive_energies_give_each_column_its_own_term(n_references):
    terms = [np.square, np.exp, np.abs, lambda x: -3 * x]

    def parts(X):
        return np.column_stack([f(X[:, j]) for j, f in enumerate(terms)])

    X, references = rows(5), rows(n_references, seed=1)
    expected = parts(X) - parts(references).mean(0)
    result = contributions(lambda X: parts(X).sum(1), X, references)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_a_symmetric_interaction_is_split_equally():
    result = contributions(lambda X: X[:, 0] * X[:, 1], np.array([[2.0, 3.0]]),
                           np.zeros((1, 2)))  # fmt: skip
    np.testing.assert_allclose(result, [[3.0, 3.0]], rtol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_two_columns_are_exact_by_one_order_and_its_reverse(seed):
    X, references = rows(3, 2), rows(4, 2, seed=1)
    result = contributions(tangled, X, references, seed)
    for x, values in zip(X, result, strict=True):
        for j in (0, 1):
            own_first = np.array(references)
            own_first[:, j] = x[j]
            other_first = np.tile(x, (4, 1))
            other_first[:, j] = references[:, j]
            step = tangled(own_first) - tangled(references)
            step += tangled(np.tile(x, (4, 1))) - tangled(other_first)
            assert values[j] == pytest.approx(step.mean() / 2)


@pytest.mark.parametrize("d", [1, 2, 9])
@pytest.mark.parametrize("n_references", [1, 6])
def test_contributions_sum_to_the_energy_minus_the_baseline(d, n_references):
    X, references = rows(5, d), rows(n_references, d, seed=1)
    result = contributions(tangled if d > 1 else np.ravel, X, references)
    energy = tangled if d > 1 else np.ravel
    expected = energy(X) - energy(references).mean()
    assert result.shape == (5, d)
    np.testing.assert_allclose(result.sum(1), expected, rtol=1e-12, atol=1e-12)


def test_columns_that_do_not_matter_contribute_nothing():
    X, references = rows(5), rows(3, seed=1)
    X[:, 2] = references[:, 2] = 7.0
    result = contributions(tangled, X, references)
    assert (result[:, 2] == 0).all()
    ignored = contributions(lambda X: X[:, 0] * X[:, 1], X, references)
    assert (ignored[:, 2:] == 0).all()


def test_many_references_approach_the_exact_game():
    X, reference = rows(1, 3), rows(1, 3, seed=1)
    many = np.repeat(reference, 4000, axis=0)

    def value(columns):
        hybrid = reference.copy()
        hybrid[:, columns] = X[:, columns]
        return tangled(hybrid)[0]

    exact = [
        (value([j]) - value([])) / 3
        + (value([j, a]) - value([a])) / 6
        + (value([j, b]) - value([b])) / 6
        + (value([0, 1, 2]) - value([a, b])) / 3
        for j, a, b in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
    ]
    result = contributions(tangled, X, many)
    np.testing.assert_allclose(result[0], exact, atol=0.02)


def test_a_seed_decides_the_orders():
    X, references = rows(4), rows(2, seed=1)
    first = contributions(tangled, X, references, seed=0)
    np.testing.assert_array_equal(first, contributions(tangled, X, references, seed=0))
    assert not np.allclose(first, contributions(tangled, X, references, seed=1))


def test_a_row_is_explained_alike_alone_and_in_any_batch(monkeypatch):
    X, references = rows(7), rows(3, seed=1)
    together = contributions(tangled, X, references)
    for i in range(7):
        alone = contributions(tangled, X[i : i + 1], references)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-12)
    calls = []

    def counted(X):
        calls.append(len(X))
        return tangled(X)

    monkeypatch.setattr(explain, "WALK_VALUES", 2 * 6 * 5 * 4)
    in_blocks = contributions(counted, X, references)
    np.testing.assert_allclose(in_blocks, together, rtol=1e-12)
    assert calls == [2 * 6 * 5] * 3 + [6 * 5]


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    contributions(tangled, rows(2), rows(2, seed=1))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def frames():
    X = pd.DataFrame(
        {
            "size": [1.5, 2.5],
            "count": np.array([1, 2], dtype=np.int16),
            "colour": pd.Categorical(["red", "blue"], categories=["red", "blue"]),
            "flag": [True, False],
            "name": ["a", "b"],
            "day": pd.to_datetime(["2020-01-01", "2021-01-01"]),
            "maybe": pd.array([1, None], dtype="Int64"),
        },
        index=["x", "y"],
    )
    return X, X.iloc[::-1].reset_index(drop=True)


def test_picker_keeps_the_types_of_a_frame():
    X, references = frames()
    picked = row_picker(X, references)(np.array([[0] * 7, [3] * 7, [1, 2] * 3 + [1]]))
    pd.testing.assert_series_equal(picked.dtypes, X.dtypes)
    expected = pd.concat([X.iloc[[0]], X.iloc[[0]], X.iloc[[1]]], ignore_index=True)
    pd.testing.assert_frame_equal(picked, expected)


def test_picker_takes_every_cell_from_its_source():
    X, references = frames()
    picked = row_picker(X, references)(np.array([[0, 1, 0, 1, 2, 3, 0]]))
    assert picked.iloc[0, :5].tolist() == [1.5, 2, "red", False, "b"]
    assert picked.loc[0, "day"] == pd.Timestamp("2020-01-01")


def test_frames_and_arrays_are_picked_alike():
    X, references = rows(5), rows(3, seed=1)
    names = ["b", "a", 3, "d"]
    source = np.random.default_rng(2).integers(0, 8, size=(20, 4))
    frame = row_picker(
        pd.DataFrame(X, columns=names), pd.DataFrame(references, columns=names)
    )(source)
    assert list(frame.columns) == names
    array = row_picker(X, references)(source)
    np.testing.assert_array_equal(frame.to_numpy(), array)
    stacked = np.vstack([X, references])
    expected = [[stacked[i, j] for j, i in enumerate(place)] for place in source]
    np.testing.assert_array_equal(array, expected)
