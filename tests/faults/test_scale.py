"""FAULTS.md rows 3, 3b, 5 to 11: numbers that are too large, too small, too alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone


def spread(energy):
    """Return the distance between the 5% and the 95% quantile."""
    return float(np.subtract(*np.quantile(energy, [0.95, 0.05])))


@pytest.mark.parametrize("value", [0.0, 3.0, -1e9, 0.1])
def test_row_03_constant_column(estimator, X, X_new, dtype, value):
    def widen(rows):
        return np.c_[rows, np.full(len(rows), value)].astype(dtype)

    energy = estimator.fit(widen(X)).energy(widen(X_new))
    assert np.isfinite(energy).all()
    with_jump = widen(X_new)
    with_jump[:, 3] = value + 1e3 * max(1, abs(value))
    assert np.all(estimator.energy(with_jump) > energy.max())


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("step", [1e-5, -1e-5])
def test_row_03b_constant_column_moves_a_little(estimator, X, X_new, value, step):
    """A column that was constant moves by 1e-5: the energy hardly reacts."""
    rows = np.c_[X_new, np.full(len(X_new), value)]
    estimator.fit(np.c_[X, np.full(len(X), value)])
    before = estimator.energy(rows)
    moved = rows + np.array([0, 0, 0, step])
    fresh = [i for i, row in enumerate(X_new) if not (row == X).all(1).any()]
    change = np.abs(estimator.energy(moved) - before)[fresh]
    assert change.max() <= 0.02 * spread(before)
    flips = estimator.predict(moved)[fresh] != estimator.predict(rows)[fresh]
    assert flips.sum() <= 1


def test_row_05_one_column(estimator, rng, dtype, readers):
    X = rng.normal(size=(60, 1)).astype(dtype)
    estimator.fit(X)
    for reader in readers(estimator):
        assert np.isfinite(getattr(estimator, reader)(X)).all()
    low, high = estimator.energy(np.array([[0.0], [9.0]], dtype))
    assert high > low
    assert estimator.sample(4).shape == (4, 1)


@pytest.mark.parametrize("power", [-1000, -100, 100, 1000])
def test_row_06_all_scaled(estimator, X, X_new, power):
    """Powers of two change no digit of X, so no digit of the energies either."""
    expected = estimator.fit(X).energy(X_new)
    factor = 2.0**power
    scaled = estimator.fit(factor * X).energy(factor * X_new)
    np.testing.assert_array_equal(scaled, expected)


@pytest.mark.parametrize("power", [-1000, -600, 600, 1000])
def test_row_06_a_shared_unit_scaled(estimator, rng, power):
    """Columns that share a unit, as pixels do, are pooled; their scale is not lost."""
    X = rng.integers(0, 17, size=(60, 8)).astype(float)
    expected = estimator.fit(X).energy(X)
    factor = 2.0**power
    scaled = estimator.fit(factor * X).energy(factor * X)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e30])
def test_row_06_all_scaled_by_powers_of_ten(estimator, X, X_new, factor):
    expected = estimator.fit(X).energy(X_new)
    scaled = estimator.fit(factor * X).energy(factor * X_new)
    np.testing.assert_allclose(scaled[:30], expected[:30], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("power", [-300, 300])
def test_row_06_log_partition_follows_the_units(estimator, X, power):
    """Of 2^k X it is that of X plus k log 2 per column."""
    before = estimator.fit(X).log_partition_
    after = estimator.fit(2.0**power * X).log_partition_
    if before is None:
        assert after is None
        return
    assert after - before == pytest.approx(3 * power * np.log(2.0), abs=1e-6)


def test_row_06_all_scaled_in_float32(estimator, X, X_new):
    X, X_new = X.astype(np.float32), X_new.astype(np.float32)
    expected = estimator.fit(X).energy(X_new)
    for factor in np.float32([2.0**-100, 2.0**100]):
        scaled = estimator.fit(factor * X).energy(factor * X_new)
        np.testing.assert_array_equal(scaled, expected)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1e30, np.float64),
        (1e300, np.float64),
        (1.7e308, np.float64),
        (1e30, np.float32),
        (1e38, np.float32),
    ],
)
def test_row_07_one_huge_value(estimator, X, X_new, value, kind, column, sign):
    estimator.fit(X.astype(kind))
    rows = X_new.astype(kind)
    rows[7, column] = sign * value
    scores = estimator.score_samples(rows)
    assert np.isfinite(scores).all()
    assert np.all(np.delete(scores, 7) > scores[7])
    assert estimator.predict(rows)[7] == -1
    if hasattr(estimator, "explain"):
        contributions = np.asarray(estimator.explain(rows[7:8]))
        assert np.isfinite(contributions).all()
        assert contributions[0].argmax() == column


def test_row_07_huge_float64_value_after_a_float32_fit(estimator, X):
    estimator.fit(X.astype(np.float32))
    scores = estimator.score_samples(np.vstack([X, [[1e300, 0, 0]]]))
    assert np.isfinite(scores).all()
    assert scores.argmin() == len(X)


@pytest.mark.parametrize("value", [1e30, 1e300])
def test_row_07_one_huge_value_in_fit(estimator, X, value):
    X[5, 1] = value
    scores = estimator.fit(X).score_samples(X)
    assert np.isfinite(scores).all()
    assert scores.argmin() == 5
    assert estimator.predict(X)[5] == -1


def test_row_08_beyond_float32(estimator, X, X_new):
    expected = estimator.fit(X).energy(X_new)
    scaled = estimator.fit(1e300 * X).energy(1e300 * X_new)
    np.testing.assert_allclose(scaled[:30], expected[:30], rtol=1e-6, atol=1e-6)


def test_row_08_over_the_whole_range_of_float64(estimator, rng):
    """Differences overflow where values do not."""
    X = rng.uniform(-1, 1, size=(60, 2))
    expected = estimator.fit(X).energy(X)
    top = np.finfo(np.float64).max
    scaled = estimator.fit(top * X).energy(top * X)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6, atol=1e-6)


def test_row_09_denormals_are_constant(estimator, X, X_new):
    def widen(rows, values):
        return np.c_[rows, values]

    tiny = 1e-310 * np.arange(len(X))
    with pytest.warns(UserWarning, match="treated as constant"):
        energy = estimator.fit(widen(X, tiny)).energy(widen(X_new, tiny[:45]))
    assert np.isfinite(energy).all()
    zeros = np.zeros(len(X))
    constant = estimator.fit(widen(X, zeros)).energy(widen(X_new, zeros[:45]))
    fresh = np.r_[:30, 40:45]
    np.testing.assert_allclose(energy[fresh], constant[fresh], rtol=1e-6, atol=1e-6)


def test_row_09_nothing_but_denormals(estimator, X):
    with pytest.warns(UserWarning, match="treated as constant"):
        estimator.fit(1e-310 * X)
    assert np.isfinite(estimator.score_samples(1e-310 * X)).all()
    assert np.isfinite(estimator.score_samples(X)).all()


def test_row_10_all_rows_equal(estimator, dtype):
    X = np.tile(np.array([1.0, 2.0, 3.0], dtype), (40, 1))
    scores = estimator.fit(X).score_samples(X)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 1
    other = estimator.score_samples(X[:1] + np.array([[1, 0, 0]], dtype))
    assert other[0] < scores[0]
    assert np.all(estimator.predict(X) == 1)


def test_row_10_groups_of_equal_rows(estimator, X, dtype):
    X = X.astype(dtype)
    doubled = np.vstack([X[:30], X[:30], X[30:], X[:30]])
    scores = estimator.fit(doubled).score_samples(doubled)
    np.testing.assert_array_equal(scores[:30], scores[30:60])
    np.testing.assert_array_equal(scores[:30], scores[-30:])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 19, 20, 21, 22])
def test_row_11_few_rows(estimator, X, X_new, dtype, readers, n):
    X = X.astype(dtype)
    estimator.fit(X[:n])
    for reader in readers(estimator):
        assert np.isfinite(getattr(estimator, reader)(X_new.astype(dtype)[:3])).all()
    if hasattr(estimator, "sample"):
        assert np.isfinite(estimator.sample(3)).all()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_ties_at_the_contamination_percentile(estimator, X, share):
    """Ties at the threshold are normal: never more rows are flagged than asked."""
    tied = np.repeat(X[:9], 10, axis=0)
    estimator.set_params(contamination=share)
    assert np.sum(estimator.fit_predict(tied) == -1) <= share * len(tied)


def test_wide_table(estimator, rng):
    """A density has covariance matrices, so the width is one that these allow."""
    is_density = "normalizer" in estimator.get_params()
    X = rng.normal(size=(10, 300 if is_density else 10_000))
    scores = estimator.fit(X).score_samples(np.vstack([X, 9 * X[:1]]))
    assert np.isfinite(scores).all()
    assert scores.argmin() == 10


@pytest.mark.slow
def test_long_table(estimator, rng):
    X = rng.normal(size=(100_000, 1))
    scores = estimator.fit(X).score_samples(np.vstack([X[:1000], [[50.0]]]))
    assert np.isfinite(scores).all()
    assert scores.argmin() == 1000


def tables(width):
    """Tables of any finite floats, with ties and huge and tiny values among them."""
    bits = 64 if width == 8 else 32
    tops = [1e308, -1e308, 1e300] if width == 8 else [1e38, -3e38, 1e30]
    values = st.one_of(
        st.floats(allow_nan=False, allow_infinity=False, width=bits),
        st.sampled_from([0.0, -0.0, 1.0, *tops, 1e-38 if width == 4 else 1e-310]),
    )
    if width == 4:
        values = values.map(np.float32)
    shapes = st.tuples(st.integers(2, 12), st.integers(1, 4))
    return shapes.flatmap(lambda s: hnp.arrays(f"f{width}", s, elements=values))


@pytest.mark.filterwarnings("ignore:Columns .* treated as constant:UserWarning")
@pytest.mark.parametrize("width", [8, 4], ids=["float64", "float32"])
def test_any_table_gives_finite_scores(estimator, width):
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(table=tables(width), data=st.data())
    def run(table, data):
        fitted = clone(estimator).fit(table)
        scores = fitted.score_samples(table)
        assert np.isfinite(scores).all()
        assert set(fitted.predict(table)) <= {-1, 1}
        rolled = np.roll(table, data.draw(st.integers(0, 3)), axis=1)[::-1]
        assert np.isfinite(fitted.score_samples(rolled)).all()
        p = fitted.p_values(rolled)
        assert np.all((p > 0) & (p <= 1))

    run()
