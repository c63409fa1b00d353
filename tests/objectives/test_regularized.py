"""Penalties: values by hand, gradients by finite differences, where they act."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from skebm.energies import Frozen, Quadratic
from skebm.energies.perceptrons import MLP
from skebm.objectives import (
    ContrastiveDivergence,
    NoiseContrastive,
    Regularized,
    ScoreMatching,
)

FACTORS = {"energy": 0.3, "gradient": 0.2, "weight": 0.1}
ZERO = ContrastiveDivergence(n_steps=0)
"""An objective with value and gradient zero, so that the penalty stands alone."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def table(n=30):
    return torch.randn(n, 3, generator=generator(), dtype=torch.float64)


def mlp():
    energy = MLP(hidden=(6,)).build(3, generator=generator(1)).double()
    with torch.no_grad():
        energy.network[-1].weight.mul_(100)
    return energy


def loss_of(objective, energy, x, state=None):
    return objective(energy, x, state or nn.Module(), generator=generator(2))


def by_hand(name, energy, x):
    if name == "energy":
        return energy(x).square().mean()
    if name == "gradient":
        return energy.grad(x).square().sum(1).mean()
    return sum(w.square().sum() for w in energy.parameters())


@pytest.mark.parametrize("name", sorted(FACTORS))
def test_value_is_the_formula(name):
    energy, x = mlp(), table()
    loss = loss_of(Regularized(ZERO, **{name: FACTORS[name]}), energy, x)
    expected = FACTORS[name] * by_hand(name, energy, x)
    assert expected > 1e-3
    assert_close(loss.value, expected, rtol=1e-10, atol=1e-12)
    assert_close(loss.metrics[f"{name}_penalty"], expected.detach())


def test_penalties_add_to_the_objective():
    energy, x = mlp(), table()
    loss = loss_of(Regularized(ScoreMatching(), **FACTORS), energy, x)
    parts = [FACTORS[name] * by_hand(name, energy, x) for name in FACTORS]
    expected = loss_of(ScoreMatching(), energy, x).value + sum(parts)
    assert_close(loss.value, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [*sorted(FACTORS), "all"])
def test_gradient_equals_finite_differences(name):
    energy, x = mlp(), table()
    chosen = FACTORS if name == "all" else {name: FACTORS[name]}
    objective = Regularized(ZERO, **chosen)
    weights = list(energy.parameters())
    value = loss_of(objective, energy, x).value
    gradients = torch.autograd.grad(value, weights, materialize_grads=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        flat, step = weight.data.view(-1), 1e-6
        for j in range(0, len(flat), 3):
            kept = flat[j].item()
            sides = []
            for side in (kept + step, kept - step):
                flat[j] = side
                sides.append(loss_of(objective, energy, x).value.item())
            flat[j] = kept
            slope = (sides[0] - sides[1]) / (2 * step)
            assert gradient.view(-1)[j].item() == pytest.approx(slope, abs=1e-7)


def test_frozen_weights_are_not_penalised():
    energy = mlp() + Frozen(Quadratic().match(table()[0], 9 * torch.eye(3).double()))
    loss = loss_of(Regularized(ZERO, weight=1.0), energy, table())
    assert_close(loss.value, by_hand("weight", energy.left, None))


def test_held_out_value_is_that_of_the_objective():
    energy, x = mlp(), table()
    state = nn.Module().eval()
    loss = loss_of(Regularized(ScoreMatching(), **FACTORS), energy, x, state)
    assert torch.equal(loss.value, loss_of(ScoreMatching(), energy, x).value)


@pytest.mark.parametrize("inner", [ScoreMatching(), NoiseContrastive()], ids=repr)
def test_criterion_is_that_of_the_objective(inner):
    energy, x = mlp(), table()
    state = inner.init(energy, x, generator=generator()).eval()
    values = [
        objective.criterion(energy, x, state, generator=generator(3))
        for objective in (inner, Regularized(inner, **FACTORS))
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("name", sorted(FACTORS))
def test_penalty_lowers_what_it_penalises(name, rows, descend):
    """For the gradient: E gets a smaller slope where the data are."""
    x = rows[:5000, :3]
    sizes = []
    for factor in (0.0, 1.0):
        energy = MLP(hidden=(16,)).build(3, generator=generator(1))
        objective = Regularized(ScoreMatching(), **{name: factor})
        descend(objective, energy, x, n_steps=100, batch_size=200, rate=0.01)
        sizes.append(float(by_hand(name, energy, x).detach()))
    assert sizes[1] < 0.7 * sizes[0]
