"""A change of units: the energy keeps its values, log Z gains the volume."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.testing import assert_close

from skebm.energies import MLP, Gaussians, Quadratic, Rescaled
from skebm.exceptions import NotNormalizableError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


MEAN, COVARIANCE = double(0.5, -1.0), double([1.5, 0.6], [0.6, 0.8])
LOCATION, SCALE = (3.0, -20.0), (2.0, 0.1)
ROWS = double([3.0, -20.0], [4.5, -20.3], [-1.0, -19.9])


def rescaled(part=None, **params):
    part = Quadratic().match(MEAN, COVARIANCE) if part is None else part
    return Rescaled(part, LOCATION, SCALE, **params)


def exact(factor=1.0):
    """The Gaussian that m + s z follows, its precision times ``factor``."""
    scale = np.array(SCALE)
    mean = np.array(LOCATION) + scale * MEAN.numpy()
    return multivariate_normal(
        mean, COVARIANCE.numpy() * np.outer(scale, scale) / factor
    )


@pytest.mark.parametrize("constant", [0.0, -2.5])
def test_density_is_that_of_the_changed_variable(constant):
    energy = rescaled(constant=constant)
    log_density = -energy(ROWS) - energy.log_partition()
    expected = torch.from_numpy(exact().logpdf(ROWS.numpy()))
    assert_close(log_density, expected, rtol=1e-10, atol=1e-10)
    assert_close(energy(ROWS), rescaled()(ROWS) + constant)


def test_log_partition_at_a_temperature():
    energy = rescaled(constant=1.5)
    volume = 0.5 * math.log(np.linalg.det(COVARIANCE.numpy())) + math.log(2.0 * 0.1)
    expected = math.log(2 * math.pi * 2.0) + volume - 1.5 / 2.0
    assert energy.log_partition(2.0) == pytest.approx(expected, abs=1e-12)
    assert (0.5 * energy).log_partition() == pytest.approx(expected, abs=1e-12)


def test_log_partition_is_unknown_where_that_of_the_part_is():
    energy = rescaled(MLP((4,)).build(2, generator=generator()))
    assert energy.log_partition() is None
    assert energy.as_quadratic() is None


def test_polynomial_is_the_energy():
    """Also where the center is not the minimum, as in a sum of Gaussians."""
    one = Quadratic().match(MEAN, COVARIANCE)
    for part in (one, one + Quadratic().match(-2 * MEAN, 3 * COVARIANCE)):
        energy = rescaled(part, constant=-0.3)
        form = energy.as_quadratic()
        step = ROWS - form.center
        value = form.value + step @ form.slope
        value = value + 0.5 * (step @ form.precision * step).sum(1)
        assert_close(value, energy(ROWS), rtol=1e-10, atol=1e-10)
        assert_close(form.size, form.precision.diagonal(), rtol=1e-12, atol=0.0)


def test_sum_of_two_units_has_the_closed_form_of_gaussians():
    energy = rescaled() + Quadratic().match(double(3.0, -20.0), double([1, 0], [0, 1]))
    precision = np.linalg.inv(exact().cov) + np.eye(2)
    mean = np.linalg.solve(
        precision, np.linalg.inv(exact().cov) @ exact().mean + [3.0, -20.0]
    )
    least = energy(torch.from_numpy(mean)[None]).item()
    half_log_det = 0.5 * np.linalg.slogdet(precision)[1]
    expected = math.log(2 * math.pi) - half_log_det - least
    assert energy.log_partition() == pytest.approx(expected, abs=1e-9)
    with pytest.raises(NotNormalizableError):
        (rescaled() - rescaled()).log_partition()


def test_draws_follow_the_changed_variable():
    x = rescaled().sample(200_000, generator=generator())
    np.testing.assert_allclose(x.mean(0), exact().mean, atol=0.01)
    np.testing.assert_allclose(np.cov(x.T.numpy()) / exact().cov, 1.0, atol=0.02)


def test_a_part_without_sample_is_named():
    with pytest.raises(TypeError, match=r"MLP.* has no sample\(\)"):
        rescaled(MLP((4,))).sample(3, generator=generator())


@pytest.mark.parametrize(
    ("location", "scale"),
    [((0.0,), (1.0, 1.0)), ((0.0, 0.0), (1.0,)), ((0.0, 0.0), (1.0, -1.0))],
)
def test_wrong_units_are_refused(location, scale):
    energy = Rescaled(Gaussians().build(2), location, scale)
    with pytest.raises(ValueError, match="one positive scale per column"):
        energy(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="one positive scale per column"):
        energy.value_and_grad(torch.zeros(3, 2))


def test_build_reaches_the_part():
    energy = Rescaled(Quadratic(), (1.0, 2.0), (3.0, 4.0)).build(2)
    assert energy(torch.tensor([[1.0, 6.0]])).item() == 0.5
