"""Noise-contrastive estimation against its published form and known log Z."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch.testing import assert_close

from skebm.energies import Frozen, Gaussians, Quadratic, Tilted
from skebm.energies.perceptrons import MLP
from skebm.objectives import NoiseContrastive, RankingNoiseContrastive


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def table(n=30, d=2, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def noise_law(d=2):
    eye = torch.eye(d, dtype=torch.float64)
    return Quadratic().match(torch.full((d,), 0.3).double(), 1.7 * eye)


def mlp(d=2, scale=30.0):
    energy = MLP(hidden=(8,)).build(d, generator=generator(7)).double()
    with torch.no_grad():
        energy.network[-1].weight.mul_(scale)
    return energy


@pytest.mark.parametrize("ratio", [1, 3])
def test_loss_is_the_published_one(ratio):
    law, energy, x = noise_law(), mlp(), table()
    objective = NoiseContrastive(Frozen(law), ratio=ratio)
    state = objective.init(energy, x, generator=generator())
    value = objective(energy, x, state, generator=generator(1)).value
    y = law.sample(ratio * len(x), generator=generator(1))

    def log_model(rows):
        return -energy(rows) - state.log_partition

    def log_noise(rows):
        return -law(rows) - law.log_partition()

    def posterior(rows):
        data, noise = log_model(rows).exp(), ratio * log_noise(rows).exp()
        return data / (data + noise)

    # Gutmann & Hyvarinen (2010), equation 8, per data row.
    expected = -posterior(x).log().sum() - (1 - posterior(y)).log().sum()
    assert_close(value, expected / len(x), rtol=1e-10, atol=1e-10)


def test_base_density_cancels_for_a_tilted_energy():
    tilted = Tilted(noise_law(), mlp())
    x, values, gradients = table(), [], []
    for noise in (None, Frozen(noise_law())):
        objective = NoiseContrastive(noise, ratio=2)
        state = objective.init(tilted, x, generator=generator())
        loss = objective(tilted, x, state, generator=generator(1)).value
        values.append(loss)
        weights = [*tilted.tilt.parameters(), state.log_partition]
        gradients.append(torch.autograd.grad(loss, weights))
    assert_close(values[0], values[1], rtol=1e-10, atol=1e-10)
    assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)


def test_neither_density_is_evaluated_for_a_tilted_energy(monkeypatch):
    tilted, x, objective = Tilted(noise_law(), mlp()), table(), NoiseContrastive()
    state = objective.init(tilted, x, generator=generator())
    monkeypatch.setattr(Quadratic, "forward", None)
    objective(tilted, x, state, generator=generator()).value.backward()
    assert tilted.base.mean.grad is None


def test_log_partition_starts_at_its_importance_estimate():
    law = noise_law(5)
    state = NoiseContrastive(Frozen(law)).init(law, table(9, 5), generator=generator())
    assert state.log_partition.item() == pytest.approx(law.log_partition(), abs=1e-9)


def test_log_partition_of_another_energy_starts_at_its_importance_estimate():
    """Of 1.5 E, within four standard errors; the mean of the logs is .24 nat lower."""
    law, d = noise_law(5), 5
    state = NoiseContrastive(Frozen(law)).init(
        1.5 * law, table(9, d), generator=generator()
    )
    exact = law.log_partition() - d / 2 * math.log(1.5)
    error = math.sqrt(((1.5**2 / 2) ** (d / 2) - 1) / 1000)
    assert state.log_partition.item() == pytest.approx(exact, abs=4 * error)


def test_loss_is_least_at_the_truth_and_the_sign_is_right():
    """Over the constant alone: the minimum is log Z of the energy."""
    law, wide = noise_law(1), Quadratic().match(table(1, 1)[0], torch.eye(1).double())
    x = wide.sample(200_000, generator=generator(3))
    objective = NoiseContrastive(Frozen(law), ratio=2)
    state = objective.init(wide, x, generator=generator())

    def at(c):
        with torch.no_grad():
            state.log_partition.fill_(float(c[0]))
            return objective(wide, x, state, generator=generator(4)).value.item()

    found = minimize(at, [0.0], method="Nelder-Mead").x[0]
    assert found == pytest.approx(0.5 * math.log(2 * math.pi), abs=0.01)


def test_criterion_is_the_log_ratio_of_the_normalised_densities():
    """Whatever the learned constant is: log q(x) - log p(x) in closed form."""
    law, x = noise_law(), table(500)
    energy = Quadratic().match(table(1)[0], 0.8 * torch.eye(2).double())
    objective = NoiseContrastive(Frozen(law))
    state = objective.init(energy, x, generator=generator()).eval()
    with torch.no_grad():
        state.log_partition += 5.0
        log_p, log_q = (-e(x).mean() - e.log_partition() for e in (energy, law))
    got = objective.criterion(energy, x, state, generator=generator(1))
    assert got == pytest.approx(float(log_q - log_p), abs=0.02)


@pytest.mark.parametrize("ratio", [1, 2])
def test_log_partition_and_precision_of_a_gaussian(
    law, rows, descend, precision, relative_error, ratio
):
    energy = Quadratic().build(5)
    state = descend(NoiseContrastive(ratio=ratio), energy, rows)
    learned = state.log_partition.item()
    assert learned == pytest.approx(law.log_partition(), abs=0.02)
    assert learned == pytest.approx(energy.log_partition(), abs=0.02)
    assert relative_error(precision(energy), precision(law)) < 0.03


def test_fixed_constant_is_absorbed_by_the_energy(descend):
    """A mixture from a tilted Gaussian: the tilt's own offset normalises it."""
    weights = torch.tensor([0.8, 0.2])
    means, eye = torch.tensor([[-1.0], [1.5]]), torch.eye(1)
    data = Gaussians().match(weights, means, torch.stack([0.3 * eye, 0.3 * eye]))
    x = data.sample(20_000, generator=generator())
    base = Quadratic().match(x.mean(0), 1.2 * x.T.cov().reshape(1, 1))
    energy = Tilted(base, MLP(hidden=(32, 32))).build(1, generator=generator())
    objective = NoiseContrastive(learn_log_partition=False)
    state = descend(objective, energy, x, n_steps=500, batch_size=500, rate=0.01)
    assert state.log_partition.item() == 0.0
    grid = torch.linspace(-6, 6, 2001)[:, None]
    with torch.no_grad():
        density, truth = (-energy(grid)).exp(), (-data(grid)).exp()
    step = float(grid[1] - grid[0])
    assert float(density.sum()) * step == pytest.approx(1.0, abs=0.03)
    assert float((density - truth).abs().sum()) * step < 0.06


def test_ranking_equals_the_cross_entropy_of_the_conditional_model():
    law, energy, x = noise_law(), mlp(), table()
    objective = RankingNoiseContrastive(n_noise=7, noise=Frozen(law))
    state = objective.init(energy, x, generator=generator())
    value = objective(energy, x, state, generator=generator(1)).value
    y = law.sample(7, generator=generator(1))
    # One conditional energy per candidate: E(x) + log q(x), candidate 0 is the truth.
    candidates = torch.cat([x[:, None], y.expand(len(x), 7, 2)], 1)
    flat = candidates.reshape(-1, 2)
    logits = (-energy(flat) + law(flat)).reshape(len(x), 8)
    target = torch.zeros(len(x), dtype=torch.long)
    expected = torch.nn.functional.cross_entropy(logits, target)
    assert_close(value, expected, rtol=0, atol=1e-6)


def test_ranking_bound_is_at_most_log_of_the_candidates():
    law, x = noise_law(), table()
    sharp = Quadratic().match(x.mean(0), 1e-4 * torch.eye(2).double())
    objective = RankingNoiseContrastive(n_noise=15, noise=Frozen(law))
    state = objective.init(sharp, x, generator=generator())
    for energy, rows in ((sharp, x[:1] * 0 + x.mean(0)), (mlp(), x), (law, x)):
        loss = objective(energy, rows, state, generator=generator())
        assert loss.value >= 0
        assert loss.metrics["bound"] <= math.log(16)
    assert loss.metrics["bound"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_ranking_bound_reaches_the_mutual_information(correlation, descend):
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    x = Quadratic().match(torch.zeros(2), covariance)
    x = x.sample(20_000, generator=generator())
    objective = RankingNoiseContrastive(500, Frozen(Quadratic().build(2)))
    energy = Quadratic().build(2)
    state = descend(objective, energy, x, n_steps=300, batch_size=500)
    bounds = [
        objective(energy, x, state, generator=generator(s)).metrics["bound"].item()
        for s in range(10)
    ]
    truth = -0.5 * math.log(1 - correlation**2)
    assert sum(bounds) / 10 == pytest.approx(truth, abs=0.1)


def test_ranking_finds_the_precision(law, rows, descend, precision, relative_error):
    energy = Quadratic().build(5)
    descend(RankingNoiseContrastive(n_noise=500), energy, rows, batch_size=500)
    assert relative_error(precision(energy), precision(law)) < 0.03


def test_ranking_ignores_the_constant_of_the_energy():
    x, objective = (
        table(),
        RankingNoiseContrastive(n_noise=7, noise=Frozen(noise_law())),
    )
    energy = mlp()
    state = objective.init(energy, x, generator=generator())
    values = []
    for _ in range(2):
        values.append(objective(energy, x, state, generator=generator(1)).value)
        with torch.no_grad():
            energy.network[-1].bias += 3.0
    assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)
