"""Starts of an energy regression: left-out residuals and their Student law."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from skebm.estimators.linear_laws import (
    ALPHAS,
    constant_law,
    linear_law,
    student,
)


@pytest.mark.parametrize("freedom", [3.0, 8.0])
def test_student_finds_width_and_freedom(freedom):
    rng = np.random.default_rng(0)
    width, found = student(0.7 * rng.standard_t(freedom, 20_000), np.ones(20_000))
    assert width == pytest.approx(0.7, rel=0.05)
    assert found == pytest.approx(freedom, rel=0.3)


def test_student_is_the_likeliest_of_its_freedom():
    r, weight = stats.t(4).rvs(300, random_state=0), np.linspace(0.5, 1.5, 300)
    width, freedom = student(r, weight)
    best = weight @ stats.t.logpdf(r, freedom, scale=width)
    for other in (0.97, 1.03):
        assert best > weight @ stats.t.logpdf(r, freedom, scale=other * width)


def test_gaussian_residuals_have_the_largest_freedom():
    r = np.random.default_rng(0).normal(size=20_000)
    assert student(r, np.ones(len(r)))[1] == 32.0


def test_the_law_is_that_of_left_out_residuals():
    """With as many columns as half the rows, residuals in the sample are too small."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30))
    y = x[:, :3].sum(1, keepdims=True) + rng.normal(size=(60, 1))
    law = linear_law(x, y, np.ones(60))

    def left_out(penalty):
        found = cross_val_predict(Ridge(penalty), x, y, cv=LeaveOneOut())
        return y - found.reshape(-1, 1)

    errors = {penalty: left_out(penalty) ** 2 for penalty in ALPHAS}
    least = min(errors.values(), key=np.mean)
    allowed = least.mean() + least.std() / np.sqrt(60)
    penalty = max(p for p, error in errors.items() if error.mean() <= allowed)
    ridge = Ridge(penalty).fit(x, y)
    np.testing.assert_allclose(law.coef, ridge.coef_.reshape(-1, 1), rtol=1e-8)
    assert law.mixing[0, 0] ** 2 == pytest.approx(errors[penalty].mean(), rel=0.05)
    assert (
        np.mean((y - ridge.predict(x).reshape(-1, 1)) ** 2)
        < 0.8 * errors[penalty].mean()
    )


def test_weights_are_repetitions_of_the_slope():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 2)), rng.normal(size=(500, 1))
    y += 3 * x[:, :1]
    weight = np.where(x[:, 0] > 0, 2.0, 1.0)
    law = linear_law(x, y, weight)
    size = np.sqrt(np.average((y - x @ law.coef - law.intercept)[:, 0] ** 2, 0, weight))
    assert law.mixing[0, 0] == pytest.approx(size, rel=0.02)


def test_a_constant_law_is_that_of_the_weighted_targets():
    rng = np.random.default_rng(0)
    y, weight = rng.normal(size=(400, 2)), rng.uniform(0.5, 2, 400)
    y[:, 1] += 2 * y[:, 0]
    law = constant_law(3, y, weight)
    np.testing.assert_array_equal(law.coef, np.zeros((3, 2)))
    np.testing.assert_allclose(law.intercept[0], np.average(y, 0, weight))
    covariance = np.cov(y.T, aweights=weight, bias=True)
    np.testing.assert_allclose(law.mixing @ law.mixing.T, covariance, atol=1e-5)
