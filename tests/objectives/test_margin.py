"""The hinge loss: zero beyond the margin, the published slope inside."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from skebm.energies import Energy, Frozen, Gaussians, Quadratic
from skebm.objectives import Margin


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Slope(Energy):
    """E(x) = w x."""

    def __init__(self, w=1.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return self.w * x[:, 0]


def at(place):
    """Return a density within 1e-4 of ``place``."""
    mean = torch.tensor([[float(place)]])
    return Frozen(Gaussians().match(torch.ones(1), mean, 1e-10 * torch.ones(1, 1, 1)))


def loss_of(margin, place, energy=None, x=None):
    energy, x = energy or Slope(), torch.zeros(8, 1) if x is None else x
    objective = Margin(margin, at(place))
    state = objective.init(energy, x, generator=generator())
    return energy, objective(energy, x, state, generator=generator())


@pytest.mark.parametrize("gap", [1.01, 2.0, 50.0])
def test_exactly_zero_where_the_gap_is_at_least_the_margin(gap):
    energy, loss = loss_of(1.0, gap)
    loss.value.backward()
    assert loss.value.item() == 0.0
    assert energy.w.grad.item() == 0.0
    assert loss.metrics["violated"].item() == 0.0


@pytest.mark.parametrize("gap", [-3.0, 0.0, 0.5, 1.4])
def test_value_and_gradient_inside_the_margin(gap):
    energy, loss = loss_of(1.5, gap)
    loss.value.backward()
    # max(0, m + w x - w y) at x = 0, y = gap.
    assert loss.value.item() == pytest.approx(1.5 - gap, abs=1e-3)
    assert energy.w.grad.item() == pytest.approx(-gap, abs=1e-3)
    assert loss.metrics["gap"].item() == pytest.approx(gap, abs=1e-3)


def test_gradient_equals_finite_differences():
    x = torch.randn(200, 2, generator=generator(), dtype=torch.float64)
    energy = Quadratic().build(2).double()
    objective = Margin(noise=Frozen(Quadratic().build(2)))
    state = objective.init(energy, 0.3 * x, generator=generator())

    def value():
        return objective(energy, 0.3 * x, state, generator=generator(1)).value

    (gradient,) = torch.autograd.grad(value(), energy.log_diagonal)
    differences = torch.empty_like(gradient)
    for j in range(2):
        sides = []
        for step in (1e-6, -2e-6, 1e-6):
            with torch.no_grad():
                energy.log_diagonal[j] += step
                sides.append(value())
        differences[j] = (sides[0] - sides[1]) / 2e-6
    assert gradient.abs().min() > 0.1
    assert_close(gradient, differences, rtol=1e-6, atol=1e-7)


def test_training_ranks_data_below_the_noise(rows, descend):
    x = rows[:, :1] * 0.2 + 3.0
    objective = Margin(1.0, at(0.0))
    energy = Slope(0.0)
    state = descend(objective, energy, x, n_steps=200, batch_size=200)
    assert energy(x).mean() < -1.0
    assert objective(energy, x, state, generator=generator()).value < 0.05
