"""Scaling that neither overflows nor blows up what does not vary."""

import numpy as np
import pytest

from skebm.estimators.scaling import (
    given_columns,
    location_and_scale,
    row_spacing,
    scaled,
)


def rows(seed=0):
    return np.random.default_rng(seed).normal(size=(50, 3)) * [1.0, 20.0, 0.1] + 5


def test_mean_and_standard_deviation():
    location, scale = location_and_scale(rows())
    np.testing.assert_allclose(location, rows().mean(0))
    np.testing.assert_allclose(scale, rows().std(0))
    z = scaled(rows(), location, scale)
    np.testing.assert_allclose(z, (rows() - rows().mean(0)) / rows().std(0))


@pytest.mark.parametrize("unit", [1e300, 1e-300, 1e30])
def test_sizes_at_the_end_of_the_floats(unit):
    z = scaled(rows() * unit, *location_and_scale(rows() * unit))
    np.testing.assert_allclose(
        z, scaled(rows(), *location_and_scale(rows())), atol=1e-9
    )


def test_constant_columns_have_their_own_size():
    x = np.column_stack([rows()[:, 0], np.full(50, 1e30), np.zeros(50)])
    location, scale = location_and_scale(x)
    assert location[1:].tolist() == [1e30, 0.0]
    assert scale[1:].tolist() == [1e30, 1.0]
    assert location_and_scale(np.full((9, 1), 1e-310))[1] == 1.0


def test_far_values_are_clipped():
    location, scale = location_and_scale(rows())
    assert scaled(np.full((1, 3), 1e300), location, scale).max() == 1e15


def test_columns_in_one_unit_share_a_scale():
    x = np.random.default_rng(0).integers(0, 17, (200, 6)).astype(float)
    x[0], x[1] = 0, 16
    x[2:, 5] = 0  # a pixel that is seldom set
    _, scale = location_and_scale(x)
    np.testing.assert_allclose(scale, np.sqrt(x.var(0).mean()))


def test_given_columns():
    location, scale = np.array([0.0, 10.0, 1.0]), np.array([1.0, 2.0, 4.0])
    names = np.array(["a", "b", "c"])
    columns, values, exact = given_columns({"c": 3.0, -3: 1}, names, location, scale)
    assert columns == (0, 2)
    assert values == (1.0, 0.5)
    assert exact == (1.0, 3.0)
    assert given_columns(None, names, location, scale) == ((), (), ())
    for key in ("d", 3, -4, 1.5):
        with pytest.raises(ValueError, match="but expected one of"):
            given_columns({key: 1.0}, names, location, scale)


def test_spacing_is_that_of_the_nearest_row():
    grid = np.stack(np.meshgrid(np.arange(7.0), np.arange(9.0)), 2).reshape(-1, 2)
    assert row_spacing(3 * grid) == pytest.approx(3 / np.sqrt(2))
    twice = np.repeat(3 * grid, 2, axis=0)
    assert row_spacing(twice) == row_spacing(3 * grid)
    assert row_spacing(grid[:1]) == 0
    line = np.arange(10_000.0)[:, None]
    assert row_spacing(line) == 1
