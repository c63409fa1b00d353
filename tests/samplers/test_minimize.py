"""Energy minimisation against minima that are known."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Box, Constrained, Energy, Gaussians, Quadratic
from skebm.samplers import minimize_energy

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, d, dtype=DOUBLE, seed=1):
    return torch.randn(n, d, generator=generator(seed), dtype=dtype)


def quadratic(d, condition):
    axes = torch.linalg.qr(rows(d, d, seed=4))[0]
    precisions = torch.logspace(0, 2, d, dtype=DOUBLE) * condition / 100
    mean = rows(1, d, seed=6)[0]
    return Quadratic().match(mean, axes @ (1 / precisions).diag() @ axes.T), mean


class Rosenbrock(Energy):
    def forward(self, x):
        return (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()


@pytest.mark.parametrize("d", [1, 5, 10])
def test_quadratic_minimum_in_fifty_steps(d):
    energy, mean = quadratic(d, 100)
    found = minimize_energy(energy, 10 * rows(20, d), n_steps=50)
    assert_close(found.x, mean.expand(20, d), rtol=0, atol=1e-6)
    assert found.converged.all()
    assert_close(found.e, energy(found.x).detach())


def test_single_precision_comes_as_close_as_it_can():
    energy, mean = quadratic(5, 100)
    x = rows(20, 5, torch.float32)
    found = minimize_energy(energy.float(), x, n_steps=100)
    assert found.x.dtype == torch.float32
    assert_close(found.x.double(), mean.expand(20, 5), rtol=0, atol=1e-4)


def test_curved_valley():
    found = minimize_energy(Rosenbrock(), 2 * rows(50, 2), n_steps=300)
    assert found.converged.all()
    assert_close(found.x, torch.ones(50, 2, dtype=DOUBLE), rtol=0, atol=1e-5)


def test_every_row_finds_its_own_mode():
    means = torch.tensor([[-5.0, 0.0], [5.0, 0.0]], dtype=DOUBLE)
    energy = Gaussians().match(
        torch.ones(2).double(), means, torch.eye(2).double().expand(2, 2, 2)
    )
    side = torch.arange(40) % 2
    found = minimize_energy(energy, means[side] + rows(40, 2))
    assert_close(found.x, means[side], rtol=0, atol=1e-4)


def test_rows_do_not_meet():
    x = 2 * rows(20, 2)
    x[3] = 1e4
    together = minimize_energy(Rosenbrock(), x, n_steps=60)
    alone = [minimize_energy(Rosenbrock(), row[None], n_steps=60) for row in x]
    assert_close(together.x, torch.cat([one.x for one in alone]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_steps", [1, 2, 5, 20])
def test_energy_never_rises(n_steps):
    x = 3 * rows(50, 2)
    before = Rosenbrock()(x)
    found = minimize_energy(Rosenbrock(), x, n_steps=n_steps)
    assert (found.e <= before).all()
    assert_close(found.e, Rosenbrock()(found.x))
    if n_steps == 1:
        assert torch.equal(found.x, x)


def test_hard_constraint_turns_steps_back():
    energy, _ = quadratic(2, 100)
    box = Constrained(energy, Box(low=3.0, high=9.0))
    x = 4 + rows(20, 2).clamp(-0.9, 0.9)
    found = minimize_energy(box, x)
    assert found.e.isfinite().all()
    assert (found.e < box(x)).all()


def test_start_without_finite_energy_is_refused():
    box = Constrained(quadratic(2, 100)[0], Box(low=3.0, high=9.0))
    with pytest.raises(ValueError, match="2 of 2 starts have an energy that is not"):
        minimize_energy(box, torch.zeros(2, 2, dtype=DOUBLE))


@pytest.mark.parametrize("counts", [{"n_steps": 0}, {"memory": 0}])
def test_counts_out_of_range_are_refused(counts):
    with pytest.raises(ValueError, match="needs n_steps >= 1 and memory >= 1"):
        minimize_energy(Rosenbrock(), rows(2, 2), **counts)


def test_evaluations_are_counted():
    class Counting(Rosenbrock):
        n_calls = 0

        def value_and_grad(self, x):
            self.n_calls += 1
            return super().value_and_grad(x)

    energy = Counting()
    minimize_energy(energy, rows(5, 2), n_steps=7)
    assert energy.n_calls == 7
