"""Denoising score matching: its sign, its scale, its optimum, its levels."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Energy, Gaussians, Quadratic
from skebm.energies.denoiser import Denoiser, NoisyMLP
from skebm.energies.perceptrons import MLP
from skebm.objectives import DenoisingScoreMatching, MultiNoiseScoreMatching


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def loss_of(objective, energy, x, seed=0):
    state = objective.init(energy, x, generator=generator())
    return objective(energy, x, state, generator=generator(seed)).value


class Kernel(Energy):
    """E(y) = sign |y - x|^2 / (2 sigma^2): the energy of the noise around one row."""

    def __init__(self, center, sigma, sign):
        super().__init__()
        self.center, self.sigma, self.sign = center, sigma, sign

    def forward(self, y):
        return self.sign * (y - self.center).square().sum(1) / (2 * self.sigma**2)


def test_gradient_meets_plus_noise_over_variance():
    """The sign trap: for one data row dE/dy = +(y - x) / sigma^2 leaves no loss."""
    x = torch.full((500, 3), 0.7, dtype=torch.float64)
    right, flipped = (Kernel(x[:1], 0.3, sign) for sign in (1.0, -1.0))
    objective = DenoisingScoreMatching(sigma=0.3)
    assert loss_of(objective, right, x).item() == pytest.approx(0.0, abs=1e-20)
    # 0.5 |-z - z|^2 = 2 |z|^2, 6 in the mean of three columns.
    assert loss_of(objective, flipped, x).item() == pytest.approx(6.0, abs=0.6)


def test_loss_is_the_published_one():
    energy = MLP(hidden=(8,)).build(3, generator=generator()).double()
    x = torch.randn(20, 3, generator=generator(2), dtype=torch.float64)
    z = torch.empty_like(x).normal_(generator=generator(1))
    y = x + 0.4 * z
    miss = energy.grad(y) - (y - x) / 0.4**2
    expected = 0.5 * 0.4**2 * miss.square().sum(1).mean()
    got = loss_of(DenoisingScoreMatching(sigma=0.4), energy, x, seed=1)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_optimum_for_gaussian_data_is_the_blurred_precision(law, precision):
    """Loss and gradient in closed form: zero slope at inv(S + s^2 I), not at inv(S)."""
    x = law.sample(400_000, generator=generator())
    covariance, blur = precision(law).inverse(), 0.25 * torch.eye(5).double()
    slopes, values = [], []
    for c in (covariance + blur, covariance):
        energy = Quadratic().match(law.mean.detach(), c)
        loss = loss_of(DenoisingScoreMatching(sigma=0.5), energy, x)
        grads = torch.autograd.grad(loss, [energy.log_diagonal, energy.lower])
        slopes.append(torch.cat([g.flatten() for g in grads]).norm().item())
        values.append(loss.item())
        # 0.5 s^2 E |P(y - m) - (y - x) / s^2|^2 with y ~ N(m, S + s^2 I).
        p = c.inverse()
        square = (p @ (covariance + blur) @ p).trace() - 2 * p.trace() + 5 / 0.25
        assert loss.item() == pytest.approx(0.125 * square.item(), rel=0.01)
    assert slopes[0] < 0.02
    assert slopes[1] > 0.3
    assert values[0] < values[1]


@pytest.mark.parametrize("sigma", [0.3, 0.5])
def test_training_recovers_the_blurred_precision(
    law, rows, descend, precision, relative_error, sigma
):
    energy = Quadratic().build(5)
    objective = DenoisingScoreMatching(sigma)
    descend(objective, energy, rows, n_steps=1000, batch_size=2000)
    blurred = precision(law).inverse() + sigma**2 * torch.eye(5).double()
    assert relative_error(precision(energy), blurred.inverse()) < 0.03
    assert relative_error(precision(energy), precision(law)) > 0.1


def test_noise_conditional_energy_is_trained_as_it_is_read():
    x = torch.randn(50, 2, generator=generator())
    family = Denoiser(hidden=(8,), sigma=0.3).build(2)
    objective = DenoisingScoreMatching(sigma=0.3)
    got = loss_of(objective, family, x, seed=1)
    assert torch.equal(got, loss_of(objective, family.at(0.3), x, seed=1))
    assert not torch.equal(got, loss_of(objective, family.at(0.9), x, seed=1))


class Blurred(NoisyMLP):
    """-log density of N(0, 1) columns plus noise of each level, exactly."""

    def forward(self, x, sigma=None):
        variance = 1 + self._levels(x, sigma).square()
        return 0.5 * (x.square() / variance + variance.log()).sum(1)


def test_many_levels_average_the_loss_of_each():
    x = torch.randn(60_000, 2, generator=generator(), dtype=torch.float64)
    family = Denoiser(hidden=(8,)).build(2).double()
    levels = (0.2, 0.5, 2.0)
    single = [
        loss_of(DenoisingScoreMatching(s), family.at(s), x).item() for s in levels
    ]
    many = loss_of(MultiNoiseScoreMatching(levels), family, x).item()
    assert many == pytest.approx(sum(single) / 3, rel=0.02)


def test_change_with_the_level_meets_its_target_at_the_exact_energy():
    """The second term in closed form: the least possible value, and zero slope."""
    x = torch.randn(300_000, 2, generator=generator(), dtype=torch.float64)
    family = Blurred().build(2)
    extra = [
        loss_of(MultiNoiseScoreMatching((0.5,), w), family, x).item() for w in (0.0, 1)
    ]
    # s dE/ds = sum_j c - c u_j^2, c = s^2 / (1 + s^2), u and z of correlation sqrt(c).
    c = 0.2
    variance = 2 * (2 * c**2 + 2 - 4 * c * c)
    assert extra[1] - extra[0] == pytest.approx(0.25 * variance, rel=0.02)


def mode_weight(family, level):
    """Return the mass left of 0 by quadrature."""
    grid = torch.linspace(-8, 8, 4001)[:, None]
    with torch.no_grad():
        mass = (-family.at(level)(grid)).softmax(0)
    return float(mass[grid[:, 0] < 0].sum())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_many_levels_find_the_weights_of_two_modes(descend, seed):
    """Weights .8 / .2, 8 sd apart, read at the smallest level by quadrature."""
    weights, means = torch.tensor([0.8, 0.2]), torch.tensor([[-2.0], [2.0]])
    data = Gaussians().match(weights, means, torch.full((2, 1, 1), 0.25))
    x = data.sample(20_000, generator=generator(seed))
    family = NoisyMLP(hidden=(64, 64)).build(1, generator=generator(seed))
    levels = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    objective = MultiNoiseScoreMatching(levels, level_weight=1.0)
    descend(objective, family, x, n_steps=1500, batch_size=500, rate=0.005)
    for level in levels[:3]:
        assert mode_weight(family, level) == pytest.approx(0.8, abs=0.03)
