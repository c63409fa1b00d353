"""The confining bowl: its normaliser, its slope, and what it holds."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.special import kv, kve

from skebm.energies import MLP, Bowl, Transformer
from skebm.energies.bowl import log_bessel_k


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def quadrature_2d(energy, half_width, n=801):
    """Log of the integral of exp(-E) over a square, by the trapezoidal rule."""
    line = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    with torch.no_grad():
        e = energy(torch.cartesian_prod(line, line))
    return float((-e).logsumexp(0)) + 2 * math.log(float(line[1] - line[0]))


def test_partition_function_in_one_dimension_is_a_bessel_function():
    energy = Bowl().build(1)
    density = lambda x: math.exp(-float(energy(torch.tensor([[x]]).double())))  # noqa: E731
    z, _ = integrate.quad(density, -np.inf, np.inf)
    assert 2 * kv(1, 1) == pytest.approx(1.2038, abs=1e-4)
    assert z == pytest.approx(2 * kv(1, 1), rel=1e-8)
    assert math.exp(energy.log_partition()) == pytest.approx(2 * kv(1, 1), rel=1e-12)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_partition_function_in_two_dimensions_equals_quadrature(scale):
    energy = Bowl(scale).build(2)
    expected = math.log(2 * math.pi * (1 + scale)) - scale
    assert quadrature_2d(energy, 40.0) == pytest.approx(expected, abs=1e-6)
    assert energy.log_partition() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 60])
@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 1.0), (0.3, 2.0), (5.0, 0.5)])
def test_partition_function_equals_the_radial_integral(d, scale, temperature):
    def log_integrand(r):
        return (d - 1) * math.log(r) - math.hypot(scale, r) / temperature

    peak = max(1.0, temperature * d)
    top = log_integrand(peak)
    area, _ = integrate.quad(
        lambda r: math.exp(log_integrand(r) - top), 1e-12, 40 * peak, points=[peak],
        epsabs=0, limit=200,
    )  # fmt: skip
    sphere = math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)
    expected = sphere + top + math.log(area)
    energy = Bowl(scale).build(d)
    assert energy.log_partition(temperature) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("order", [0.5, 1.0, 1.5, 2.0, 2.5, 10.0, 20.5])
@pytest.mark.parametrize("z", [0.1, 1.0, 30.0])
def test_bessel_functions(order, z):
    assert log_bessel_k(order, z) == pytest.approx(
        math.log(kve(order, z)) - z, rel=1e-10
    )


def test_high_orders_do_not_overflow():
    expected = math.lgamma(400) + 399 * math.log(2)
    assert log_bessel_k(400.0, 1.0) == pytest.approx(expected, rel=1e-4)


def test_log_partition_is_unknown_before_build():
    assert Bowl().log_partition() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_is_below_one_everywhere_and_reaches_it_far_away(dtype):
    x = torch.randn(500, 4, generator=generator()).to(dtype)
    x *= torch.logspace(-6, 6, 500)[:, None].to(dtype)
    energy = Bowl().build(4)
    slopes = energy.grad(x).norm(dim=1)
    assert slopes.max() <= 1 + 1e-6
    assert slopes[-1] > 0.9999
    assert slopes[0] < 1e-5
    assert energy.grad(torch.zeros(1, 4)).tolist() == [[0.0] * 4]


def test_the_bottom_is_round():
    hessian = torch.autograd.functional.hessian(
        lambda x: Bowl(2.0)(x[None]).sum(), torch.zeros(2, dtype=torch.float64)
    )
    torch.testing.assert_close(hessian, 0.5 * torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize(
    "network", [MLP((32, 32), spectral_norm=True), Transformer(16, 2, 1)], ids=repr
)
def test_a_network_in_a_bowl_has_a_finite_integral(network):
    energy = (network + 2.0 * Bowl()).build(2, generator=generator()).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3.0)
    inner, outer = quadrature_2d(energy, 20.0, 161), quadrature_2d(energy, 40.0, 321)
    assert math.isfinite(outer)
    assert inner == pytest.approx(outer, abs=1e-3)


def test_without_the_bowl_the_same_network_has_none():
    energy = MLP((32, 32), spectral_norm=True).build(2, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            weight.mul_(3.0)
    assert quadrature_2d(energy, 60.0, 241) > quadrature_2d(energy, 30.0, 121) + 1


def langevin(energy, x, step_size, n_steps, g):
    """Langevin steps, x in place; return the largest norm and the mean square."""
    farthest, total = 0.0, 0.0
    for _ in range(n_steps):
        noise = torch.randn(x.shape, generator=g, dtype=x.dtype)
        x += (2 * step_size) ** 0.5 * noise - step_size * energy.grad(x)
        farthest = max(farthest, float(x.norm(dim=1).max()))
        total += float(x.square().mean())
    return farthest, total / n_steps


def test_chains_have_the_variance_of_the_hyperbolic_distribution():
    """In 2-D the variance per column is K_(5/2)(1) / K_(3/2)(1) = 7 / 2."""
    x = torch.zeros(500, 2, dtype=torch.float64)
    energy, g = Bowl().build(2), generator()
    langevin(energy, x, 0.1, 500, g)
    _, variance = langevin(energy, x, 0.1, 5000, g)
    assert variance == pytest.approx(3.5, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("network", [None, MLP((16,))], ids=repr)
def test_a_chain_of_100_000_steps_stays_within_ten_standard_deviations(network):
    energy = Bowl() if network is None else network + Bowl()
    energy.build(2, generator=generator()).double()
    x = torch.zeros(1, 2, dtype=torch.float64)
    farthest, variance = langevin(energy, x, 0.1, 100_000, generator())
    assert farthest < 10 * variance**0.5
    assert variance == pytest.approx(3.5, rel=0.2)


def test_a_chain_with_huge_steps_does_not_explode():
    x = torch.full((4, 2), 1e3, dtype=torch.float64)
    farthest, _ = langevin(Bowl().build(2), x, 50.0, 2000, generator())
    assert farthest < 1e4


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_the_radius_must_be_positive(scale):
    with pytest.raises(ValueError, match="expected a radius > 0"):
        Bowl(scale).build(2)
