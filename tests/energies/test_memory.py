"""Stored patterns: a kernel density, attention and an associative memory in one."""

import math

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Memory, Scaled


def randn(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def quadrature(energy, d, temperature, half_width=9.0, n=721):
    line = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    grid = line[:, None] if d == 1 else torch.cartesian_prod(line, line)
    step = math.log(float(line[1] - line[0]))
    return float((-energy(grid) / temperature).logsumexp(0)) + d * step


@pytest.mark.parametrize("beta", [0.1, 1.0, 30.0])
def test_energy_equals_the_formula(beta):
    x, patterns = randn(9, 4), randn(20, 4, seed=1)
    squared = (x[:, None] - patterns).square().sum(2)
    expected = -(-0.5 * beta * squared).exp().sum(1).log() / beta
    energy = Memory(beta).store(patterns)
    assert_close(energy(x), expected, rtol=1e-12, atol=1e-12)


def test_far_rows_keep_a_finite_energy():
    energy = Memory(1.0).store(torch.zeros(1, 2, dtype=torch.float64))
    x = torch.full((1, 2), 1e8, dtype=torch.float64)
    assert_close(energy(x).item(), 1e16)


@pytest.mark.parametrize("beta", [0.7, 2.0, 3.0])
@pytest.mark.parametrize("d", [1, 2])
def test_log_partition_equals_quadrature_at_its_temperature(d, beta):
    energy = Memory(beta).store(randn(6, d))
    expected = quadrature(energy, d, 1 / beta)
    assert energy.log_partition(1 / beta) == pytest.approx(expected, abs=1e-6)


def test_log_partition_is_unknown_elsewhere():
    energy = Memory(2.0).store(randn(6, 2))
    assert energy.log_partition() is None
    assert energy.log_partition(0.51) is None


def test_scaling_by_beta_reaches_the_known_temperature():
    energy = Scaled(Memory(2.0).store(randn(6, 2)), 2.0)
    expected = quadrature(energy, 2, 1.0)
    assert energy.log_partition() == pytest.approx(expected, abs=1e-6)


def test_unit_beta_is_a_normalised_density_at_temperature_one():
    energy = Memory().store(randn(6, 2))
    expected = quadrature(energy, 2, 1.0)
    assert energy.log_partition() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("beta", [0.3, 5.0])
def test_gradient_in_closed_form_equals_autograd(beta):
    energy = Memory(beta).store(randn(20, 4, seed=1))
    x = torch.cat([randn(9, 4), energy.patterns[:2]]).requires_grad_(True)
    (expected,) = torch.autograd.grad(energy(x).sum(), x)
    assert_close(energy.grad(x.detach()), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 8.0])
def test_recall_is_attention_for_patterns_of_equal_norm(beta):
    keys = torch.nn.functional.normalize(randn(30, 5, seed=1), dim=1)
    queries = randn(9, 5)
    attention = (beta * queries @ keys.T).softmax(1) @ keys
    energy = Memory(beta).store(keys)
    assert_close(energy.recall(queries), attention, rtol=0, atol=1e-6)


def test_attention_weights_are_the_gibbs_distribution_over_patterns():
    beta, keys, queries = 3.0, randn(7, 5, seed=1), randn(4, 5)
    each = torch.stack([Memory(beta).store(key[None])(queries) for key in keys], 1)
    gibbs = (-each * beta).softmax(1)
    expected = gibbs @ keys
    recalled = Memory(beta).store(keys).recall(queries)
    assert_close(recalled, expected, rtol=0, atol=1e-6)


def test_one_step_retrieves_a_pattern_from_a_noisy_copy():
    n = 64
    g = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 2, (1000, n), generator=g).double() * 2 - 1
    flipped = torch.rand(patterns.shape, generator=g).argsort(1) < round(0.1 * n)
    noisy = torch.where(flipped, -patterns, patterns)
    energy = Memory(beta=1.0).store(patterns)
    right = (energy.recall(noisy).sign() == patterns).all(1)
    assert right.double().mean() >= 0.99
    blurred = Memory(beta=0.01).store(patterns).recall(noisy)
    assert (blurred.sign() == patterns).all(1).double().mean() < 0.5


def test_an_update_never_raises_the_energy():
    energy, x = Memory(2.0).store(randn(20, 3, seed=1)), 2 * randn(50, 3)
    for _ in range(5):
        after = energy.recall(x)
        assert (energy(after) <= energy(x) + 1e-12).all()
        x = after


def test_samples_have_the_moments_of_the_kernel_density():
    beta, patterns = 4.0, randn(5, 2)
    energy = Memory(beta).store(patterns)
    x = energy.sample(200_000, generator=torch.Generator().manual_seed(0))
    assert x.shape == (200_000, 2)
    expected = patterns.T.cov(correction=0) + torch.eye(2) / beta
    assert_close(x.mean(0), patterns.mean(0), rtol=0, atol=0.015)
    assert_close(x.T.cov(), expected, rtol=0, atol=0.02)
