"""Weighted sums of Gaussians against quadrature and linear algebra."""

import math

import numpy as np
import pytest
import torch
from laws import COVARIANCES, MEANS, PRECISIONS, double, gaussian, generator
from scipy.stats import multivariate_normal
from torch.testing import assert_close

from skebm.energies import (
    Box,
    Constrained,
    Frozen,
    Guided,
    Interpolated,
    Memory,
    Quadratic,
    Sum,
)
from skebm.exceptions import NotNormalizableError


def rows(n=50, seed=3):
    return 2 * torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)


def grid(half_width=14.0, n=561):
    line = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    return torch.cartesian_prod(line, line), 2 * math.log(float(line[1] - line[0]))


def quadrature(energy, temperature=1.0, **size):
    x, log_cell = grid(**size)
    with torch.no_grad():
        return float((-energy(x) / temperature).logsumexp(0)) + log_cell


def combined(coefficients):
    """Precision and mean of sum_k c_k E_k."""
    precision = sum(c * PRECISIONS[k] for k, c in coefficients.items())
    linear = sum(c * PRECISIONS[k] @ MEANS[k] for k, c in coefficients.items())
    return precision, torch.linalg.solve(precision, linear)


a, b, c = (gaussian(k) for k in range(3))
NESTED = {
    "product": (a + b, {0: 1, 1: 1}),
    "three": (a + b + c, {0: 1, 1: 1, 2: 1}),
    "temperature": (0.5 * (a + 2 * b), {0: 0.5, 1: 1}),
    "difference": (a + c - 0.2 * b, {0: 1, 2: 1, 1: -0.2}),
    "double negation": (-1 * -a, {0: 1}),
    "negated difference": (-(a - 3 * c), {0: -1, 2: 3}),
    "itself twice": (a + a, {0: 2}),
    "interpolation": (Interpolated(a, b, 0.3), {0: 0.7, 1: 0.3}),
    "left end": (Interpolated(a, b, 0.0), {0: 1}),
    "right end": (Interpolated(a, b, 1.0), {1: 1}),
    "guidance": (Guided(c, a, 0.5), {2: 1.5, 0: -0.5}),
    "no guidance": (Guided(c, a, 0.0), {2: 1}),
    "all of them": (
        Frozen(Interpolated(a + b, 2 * c, 0.25)) + 0.5 * Guided(c, a, 0.5),
        {0: 0.75 - 0.25, 1: 0.75, 2: 0.5 + 0.75},
    ),
}


@pytest.fixture(params=sorted(NESTED))
def nested(request):
    return NESTED[request.param]


def test_precisions_of_gaussians_add_with_their_coefficients(nested):
    energy, coefficients = nested
    precision, mean = combined(coefficients)
    hessian = torch.autograd.functional.hessian(
        lambda x: energy(x[None]).sum(), double(0.3, 0.4)
    )
    assert_close(hessian, precision, rtol=0, atol=1e-6)
    assert_close(energy.grad(mean[None])[0], 0 * mean, rtol=0, atol=1e-6)


def test_log_partition_of_combined_gaussians_equals_quadrature(nested):
    energy, _ = nested
    assert energy.log_partition() == pytest.approx(quadrature(energy), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.4, 1.7])
def test_log_partition_of_combined_gaussians_at_a_temperature(nested, temperature):
    energy, _ = nested
    expected = quadrature(energy, temperature)
    assert energy.log_partition(temperature) == pytest.approx(expected, abs=1e-6)


def test_combined_density_is_the_normal_density(nested):
    energy, coefficients = nested
    precision, mean = combined(coefficients)
    log_density = -energy(rows()).detach() - energy.log_partition()
    expected = multivariate_normal(mean, precision.inverse()).logpdf(rows().numpy())
    np.testing.assert_allclose(log_density, expected, rtol=0, atol=1e-6)


def test_as_quadratic_is_the_energy_itself(nested):
    energy, coefficients = nested
    form, x = energy.as_quadratic(), rows()
    offset = x - form.center
    turned = 0.5 * (offset @ form.precision * offset).sum(1)
    e = form.value + offset @ form.slope + turned
    assert_close(e, energy(x).detach(), rtol=1e-10, atol=1e-10)
    precision, mean = combined(coefficients)
    assert_close(form.precision, precision, rtol=0, atol=1e-6)
    assert_close(form.minimum(), mean, rtol=0, atol=1e-6)


def test_product_of_many_gaussians_in_ten_columns():
    parts, total, linear = [], 0, 0
    for seed in range(4):
        root = torch.randn(10, 10, generator=generator(seed)).double()
        precision = root @ root.T + 0.1 * torch.eye(10)
        mean = torch.randn(10, generator=generator(seed + 9)).double()
        parts.append(Quadratic().match(mean, precision.inverse()))
        total, linear = total + precision, linear + precision @ mean
    energy = parts[0] + parts[1] + parts[2] + parts[3]
    merged = Quadratic().match(torch.linalg.solve(total, linear), total.inverse())
    gap = energy(merged.mean[None]).item()
    expected = merged.log_partition() - gap
    assert energy.log_partition() == pytest.approx(expected, abs=1e-6)


def test_log_partition_of_a_product_far_from_the_origin_and_in_any_unit():
    """Overlap of two densities: log N(m_0 - m_1; 0, S_0 + S_1), wherever they are."""
    scale = double(1e-7, 1e7)
    unit = torch.outer(scale, scale)
    shift = 1e4 * scale
    parts = [
        Quadratic().match(shift + scale * MEANS[k], unit * COVARIANCES[k])
        for k in (0, 1)
    ]
    overlap = multivariate_normal(cov=COVARIANCES[0] + COVARIANCES[1])
    expected = overlap.logpdf(MEANS[0] - MEANS[1]) - math.log(scale.prod())
    expected += sum(part.log_partition() for part in parts)
    assert Sum(*parts).log_partition() == pytest.approx(expected, abs=1e-6)


def test_float32_parts_have_a_form_too():
    single = (gaussian(0) + gaussian(1)).float()
    assert single.log_partition() == pytest.approx((a + b).log_partition(), abs=1e-5)
    assert single.as_quadratic().precision.dtype == torch.float64


@pytest.mark.parametrize(
    "energy",
    [
        -a,
        -(a + b),
        0 * a,
        a - a,
        a - c,
        b - 0.9 * c,
        Frozen(a - c),
        2 * (a - c),
        Guided(a, c, 1.0),
        -Interpolated(a, b, 0.5),
    ],
    ids=repr,
)
def test_gaussians_that_have_no_normaliser_are_refused(energy):
    assert energy(rows()).isfinite().all()
    with pytest.raises(NotNormalizableError, match="must be positive definite; got"):
        energy.log_partition()
    with pytest.raises(NotNormalizableError):
        energy.as_quadratic().minimum()


@pytest.mark.parametrize("d", [2, 3, 10, 50])
@pytest.mark.parametrize("seed", range(10))
def test_a_flat_direction_is_refused(d, seed):
    """Precisions that cancel along one turned direction, up to rounding."""
    noise = torch.randn(d, d, generator=generator(seed)).double()
    turn = torch.linalg.qr(noise)[0] * torch.logspace(-6, 6, d).double()[:, None]
    first, second = torch.linspace(1, 3, d).double(), torch.full((d,), 0.5).double()
    second[0] = 1.0
    wide, narrow = (
        Quadratic().match(torch.zeros(d).double(), turn @ p.diag() @ turn.T)
        for p in (1 / first, 1 / second)
    )
    part = (wide - 0.9 * narrow).log_partition()
    gap = 0.5 * float((first - 0.9 * second).log().sum() - first.log().sum())
    assert part == pytest.approx(wide.log_partition() - gap, abs=1e-6)
    for share in (1.0, 1.1):
        with pytest.raises(NotNormalizableError, match="least eigenvalue"):
            (wide - share * narrow).log_partition()


def test_coefficients_that_cancel_up_to_rounding_are_refused():
    energy = 0.1 * a + 0.2 * a - 0.3 * a
    assert energy.as_quadratic().precision.abs().max() > 0
    with pytest.raises(NotNormalizableError):
        energy.log_partition()


def test_form_keeps_the_size_of_what_cancels():
    sizes = PRECISIONS.diagonal(dim1=1, dim2=2)
    expected = 2 * (sizes[0] + 0.5 * sizes[1] + sizes[2])
    energy = -2 * (a - 0.5 * b - c)
    assert_close(energy.as_quadratic().size, expected, rtol=1e-10, atol=0)


def test_columns_that_are_nearly_equal_are_no_flat_direction():
    """Correlation 1 - 1e-9 in both experts: half the covariance of one."""
    covariance = double([1.0, 1 - 1e-9], [1 - 1e-9, 1.0])
    one = Quadratic().match(double(0.0, 0.0), covariance)
    expected = one.log_partition() - math.log(2)
    assert (one + one).log_partition() == pytest.approx(expected, abs=1e-6)


def test_form_ignores_the_entries_above_the_diagonal():
    other = gaussian(0)
    with torch.no_grad():
        other.lower += 9.0 * torch.ones(2, 2, dtype=torch.float64).triu()
    assert torch.equal(other.as_quadratic().precision, a.as_quadratic().precision)


def test_unknown_parts_have_no_closed_form():
    memory = Memory(1.0).store(rows(5))
    for energy in (a + memory, memory - a, Interpolated(a, memory, 0.5)):
        assert energy.as_quadratic() is None
        assert energy.log_partition() is None
    assert (-memory).log_partition() is None
    assert Guided(memory, a, 0.0).log_partition() is None
    wall = Constrained(a, Box(low=0.0, high=1.0))
    assert wall.log_partition() is None
    assert (-wall).log_partition() is None


def test_log_partition_of_a_scaled_part_that_knows_its_own():
    """A kernel density: log n + (d/2) log 2 pi at temperature 1."""
    known = 2.0 * (0.5 * Memory(1.0).store(rows(5)))
    assert known.log_partition() == pytest.approx(math.log(5 * 2 * math.pi))
    assert known.log_partition(2.0) is None
