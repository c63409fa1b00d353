"""Latent variables integrated out: the linear Gaussian model, and beyond it."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Energy, LatentVariable, Quadratic
from skebm.energies.latent import hermite_grid


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def linear_gaussian(d, k, s, n_nodes=16):
    """Return W and the marginal of z ~ N(0, I), x given z ~ N(W z, s^2 I)."""
    W = randn(d, k)
    top = torch.cat([W @ W.T + s**2 * torch.eye(d), W], 1)
    covariance = torch.cat([top, torch.cat([W.T, torch.eye(k)], 1)])
    joint = Quadratic().match(torch.zeros(d + k, dtype=torch.float64), covariance)
    return W, LatentVariable(joint, k, n_nodes).place_nodes(generator=generator())


class Bent(Energy):
    """x_j given z_j is N(z_j + z_j^2 / 2, 1), z ~ N(0, I); x and z side by side."""

    def forward(self, x):
        x, z = x.chunk(2, dim=1)
        return 0.5 * (z.square() + (x - z - 0.5 * z.square()).square()).sum(1)


def bent_marginal(x):
    """The marginal energy of each column by the trapezoidal rule."""
    z = torch.linspace(-12, 12, 6001, dtype=torch.float64)
    e = 0.5 * (z**2 + (x[..., None] - z - 0.5 * z**2) ** 2)
    return -((-e).logsumexp(-1) + math.log(float(z[1] - z[0]))).sum(-1)


@pytest.mark.parametrize("s", [0.05, 0.5, 3.0])
@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 2), (4, 3), (2, 5)])
def test_linear_gaussian_marginal_is_the_closed_form(d, k, s):
    W, energy = linear_gaussian(d, k, s)
    marginal = Quadratic().match(
        torch.zeros(d, dtype=torch.float64), W @ W.T + s**2 * torch.eye(d)
    )
    x = 3 * randn(50, d, seed=2)
    log_density = -marginal(x) - marginal.log_partition()
    expected = -log_density - energy.log_partition()
    assert_close(energy(x), expected, rtol=1e-5, atol=1e-5)


def test_marginal_covariance_is_that_of_the_linear_gaussian_model():
    """W W' + s^2 I, as the inverse Hessian and as moments by quadrature."""
    W, energy = linear_gaussian(2, 1, 0.5)
    covariance = W @ W.T + 0.25 * torch.eye(2)
    hessian = torch.autograd.functional.hessian(
        lambda x: energy(x[None])[0], torch.zeros(2, dtype=torch.float64)
    )
    assert_close(hessian.inverse(), covariance, rtol=1e-4, atol=1e-4)
    line = torch.linspace(-8, 8, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    mass = (-energy(grid)).softmax(0)
    moments = grid.T @ (mass[:, None] * grid)
    assert_close(moments, covariance, rtol=0.05, atol=0.0)
    cell = float(line[1] - line[0]) ** 2
    log_z = float((-energy(grid)).detach().logsumexp(0)) + math.log(cell)
    assert energy.log_partition() == pytest.approx(log_z, abs=1e-3)


def test_gradients_reach_the_joint_energy():
    """Against the Schur complement of the joint precision."""
    _, energy = linear_gaussian(3, 2, 0.5)
    x = randn(20, 3, seed=2)
    energy(x).mean().backward()
    got = [weight.grad.clone() for weight in energy.parameters()]
    energy.zero_grad()
    q = energy.joint
    factor = q.lower.tril(-1) + q.log_diagonal.exp().diag()
    precision = factor @ factor.T
    a, b, c = precision[:3, :3], precision[:3, 3:], precision[3:, 3:]
    centered = x - q.mean[:3]
    exact = 0.5 * (centered @ (a - b @ c.inverse() @ b.T) * centered).sum(1)
    (exact.mean() + 0.5 * c.logdet()).backward()
    for gradient, weight in zip(got, energy.parameters(), strict=True):
        assert_close(gradient, weight.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_bent_posteriors_are_integrated_by_the_grid(k):
    energy = LatentVariable(Bent(), k, n_nodes=32).build(k)
    x = 1.5 * randn(30, k, seed=3) + 1
    assert_close(energy(x), bent_marginal(x), rtol=0, atol=0.02)


def test_more_nodes_come_closer():
    x = 1.5 * randn(30, 1, seed=3) + 1
    errors = [
        float((LatentVariable(Bent(), 1, n).build(1)(x) - bent_marginal(x)).abs().max())
        for n in (1, 4, 16, 64)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.05
    assert errors[-1] < 2e-3


def test_beyond_three_latent_columns_the_nodes_are_fixed_draws():
    energy = LatentVariable(Bent(), 4, n_nodes=64).build(4, generator=generator())
    x = randn(20, 4, seed=3) + 1
    assert energy.nodes.shape == (4096, 4)
    assert_close(energy(x), bent_marginal(x), rtol=0, atol=0.15)
    assert torch.equal(energy(x), energy(x))
    again = LatentVariable(Bent(), 4, n_nodes=64).build(4, generator=generator())
    assert torch.equal(again(x), energy(x))


def test_gradient_of_a_bent_marginal_equals_finite_differences_of_quadrature():
    energy = LatentVariable(Bent(), 1, n_nodes=64).build(1)
    x = 1.5 * randn(30, 1, seed=3) + 1
    slope = (bent_marginal(x + 1e-5) - bent_marginal(x - 1e-5)) / 2e-5
    assert_close(energy.grad(x)[:, 0], slope, rtol=0, atol=5e-3)


def test_far_rows_stay_finite():
    energy = LatentVariable(Bent(), 1).build(1)
    e, gradient = energy.value_and_grad(torch.tensor([[-1e4], [1e4], [0.0]]).double())
    assert e.isfinite().all()
    assert gradient.isfinite().all()
    assert e[:2].min() > e[2]


def test_a_posterior_without_curvature_at_its_mode():
    """The integral of exp(-z^4) is 2 Gamma(5 / 4)."""

    class Quartic(Energy):
        def forward(self, x):
            return 0.5 * x[:, 0].square() + x[:, 1] ** 4

    x = randn(9, 1)
    expected = 0.5 * x[:, 0].square() - math.log(2 * math.gamma(1.25))
    energy = LatentVariable(Quartic(), 1, n_nodes=32).build(1)
    assert_close(energy(x), expected, rtol=0, atol=0.01)


def test_a_flat_direction_is_no_trouble():
    class Ignored(Energy):
        def forward(self, x):
            return 0.5 * x[:, 0].square()

    energy = LatentVariable(Ignored(), 1).build(1)
    e = energy(torch.tensor([[0.0], [2.0]]))
    assert e[1] - e[0] == pytest.approx(2.0)


def test_no_gradient_mode_and_inference_mode_agree():
    _, energy = linear_gaussian(2, 1, 0.5)
    x = randn(9, 2)
    expected = energy(x)
    with torch.no_grad():
        assert torch.equal(energy(x), expected)
    with torch.inference_mode():
        assert torch.equal(energy(x.clone()), expected)


def test_rows_do_not_meet():
    energy = LatentVariable(Bent(), 2).build(2)
    x = torch.cat([randn(9, 2), 50 * randn(3, 2)])
    alone = torch.cat([energy(row[None]) for row in x])
    assert_close(energy(x), alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 100])
def test_grid_is_that_of_numpy(n):
    nodes, log_weights = hermite_grid(n, 1)
    expected, weights = np.polynomial.hermite_e.hermegauss(n)
    np.testing.assert_allclose(nodes[:, 0], expected, atol=1e-12)
    weights = np.log(weights / math.sqrt(2 * math.pi))
    np.testing.assert_allclose(log_weights, weights, atol=1e-6)


def test_grid_has_the_moments_of_the_standard_normal():
    nodes, log_weights = hermite_grid(5, 3)
    mass = log_weights.exp()
    assert nodes.shape == (125, 3)
    assert float(mass.sum()) == pytest.approx(1)
    assert_close(nodes.T @ (mass[:, None] * nodes), torch.eye(3).double())
    assert float(mass @ nodes[:, 0] ** 8) == pytest.approx(105)
    assert float(mass @ (nodes[:, 0] ** 2 * nodes[:, 2] ** 4)) == pytest.approx(3)


def test_log_partition_is_that_of_the_joint_energy_at_temperature_one():
    _, energy = linear_gaussian(2, 2, 0.5)
    assert energy.log_partition() == energy.joint.log_partition()
    assert energy.log_partition(2.0) is None


@pytest.mark.parametrize("wrong", [{"n_latent": 0}, {"n_nodes": 0}, {"n_newton": 0}])
def test_counts_start_at_one(wrong):
    settings = {"n_latent": 1, **wrong}
    with pytest.raises(ValueError, match="expected each of them >= 1"):
        LatentVariable(Quadratic(), **settings).build(2)
