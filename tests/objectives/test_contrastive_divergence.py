"""The likelihood gradient on models whose states can be enumerated."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.testing import assert_close

from skebm._torch import uniform_like
from skebm.energies import Energy, Frozen, Quadratic
from skebm.energies.perceptrons import MLP
from skebm.objectives import ContrastiveDivergence, MaximumLikelihood
from skebm.samplers import MALA, ULA, ChainState, Sampler, StepInfo


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states_of(n_bits):
    """Return all rows of bits, shape (2^n_bits, n_bits)."""
    codes = torch.arange(2**n_bits)[:, None] >> torch.arange(n_bits)
    return (codes & 1).double()


class Boltzmann(Energy):
    """E(x) = -b'x - sum_{i<j} W_ij x_i x_j on bits."""

    def build(self, n_features, *, generator=None):
        self.b = nn.Parameter(torch.zeros(n_features).double())
        self.W = nn.Parameter(torch.zeros(n_features, n_features).double())
        return self

    def forward(self, x):
        return -x @ self.b - ((x @ self.W.triu(1)) * x).sum(1)


class FreeEnergy(Energy):
    """F(v) = -b'v - sum_j softplus(c_j + W_j'v): a restricted Boltzmann machine."""

    def build(self, n_features, *, generator=None, n_hidden=8, scale=0.01):
        shape = (n_features, n_hidden)
        W = torch.empty(shape, dtype=torch.float64).normal_(generator=generator)
        self.W = nn.Parameter(scale * W)
        self.b = nn.Parameter(torch.zeros(n_features).double())
        self.c = nn.Parameter(torch.zeros(n_hidden).double())
        return self

    def forward(self, x):
        return -x @ self.b - softplus(self.c + x @ self.W).sum(1)


@dataclass
class Walk(Sampler):
    """What test kernels share: no energies in the state, all moves accepted."""

    temperature: float = 1.0

    def init(self, energy, x):
        return ChainState(x, x.new_zeros(len(x)), None)

    def moved(self, x):
        sure = torch.ones(len(x))
        return ChainState(x, sure, None), StepInfo(sure, sure.bool())


@dataclass
class BlockGibbs(Walk):
    """v -> h -> v of a restricted Boltzmann machine."""

    def step(self, energy, state, *, generator):
        on = torch.sigmoid(energy.c + state.x @ energy.W)
        h = (uniform_like(on, generator) < on).double()
        on = torch.sigmoid(energy.b + h @ energy.W.T)
        return self.moved((uniform_like(on, generator) < on).double())


@dataclass
class Gibbs(Walk):
    """One sweep over the bits of a Boltzmann machine."""

    def step(self, energy, state, *, generator):
        x, W = state.x.clone(), energy.W.triu(1)
        for i in range(x.shape[1]):
            on = torch.sigmoid(energy.b[i] + x @ (W[i] + W[:, i]))
            x[:, i] = (uniform_like(on, generator) < on).double()
        return self.moved(x)


@dataclass
class Exact(Walk):
    """Ends at given rows, wherever it starts."""

    rows: torch.Tensor = None

    def step(self, energy, state, *, generator):
        return self.moved(self.rows)


@dataclass
class Counting(Walk):
    """Adds one to every value and keeps what it was given."""

    seen: list = field(default_factory=list)

    def step(self, energy, state, *, generator):
        self.seen.append(state.x)
        return self.moved(state.x + 1)


def mean_log_likelihood(energy, x):
    """Enumerated, differentiable."""
    log_z = (-energy(states_of(x.shape[1]))).logsumexp(0)
    return -energy(x).mean() - log_z


def gradients(value, energy):
    grads = torch.autograd.grad(value, list(energy.parameters()))
    return torch.cat([g.flatten() for g in grads])


def rational():
    """Return a machine with exp(-E) whole, and how often each state comes."""
    energy = Boltzmann().build(6)
    with torch.no_grad():
        energy.b.copy_(torch.tensor([1, 2, 3, 1, 2, 5]).double().log())
        energy.W[0, 1] = energy.W[2, 4] = math.log(2)
        energy.W[3, 5] = math.log(3)
        counts = (-energy(states_of(6))).exp()
    assert_close(counts, counts.round(), rtol=1e-12, atol=0)
    return energy, counts.round().long()


@pytest.mark.parametrize("kind", [MaximumLikelihood, ContrastiveDivergence])
def test_gradient_with_exact_samples_is_that_of_the_log_likelihood(kind):
    energy, counts = rational()
    model = states_of(6).repeat_interleave(counts, 0)
    x = states_of(6)[torch.randint(64, (50,), generator=generator())]
    objective = kind(n_steps=1, sampler=Exact(rows=model))
    state = objective.init(energy, x, generator=generator())
    loss = objective(energy, x, state, generator=generator())
    expected = gradients(-mean_log_likelihood(energy, x), energy)
    assert expected.norm() > 0.1
    assert_close(gradients(loss.value, energy), expected, rtol=0, atol=1e-6)


def test_gap_is_zero_where_the_model_is_the_data():
    energy, counts = rational()
    model = states_of(6).repeat_interleave(counts, 0)
    objective = MaximumLikelihood(n_steps=1, sampler=Exact(rows=model))
    state = objective.init(energy, model, generator=generator())
    loss = objective(energy, model, state, generator=generator())
    assert loss.metrics["gap"].item() == pytest.approx(0.0, abs=1e-12)
    assert gradients(loss.value, energy).norm() < 1e-12


@pytest.mark.parametrize("energy", ["boltzmann", "network"])
def test_zero_steps_give_exactly_zero_gradient(energy):
    if energy == "boltzmann":
        energy, x = rational()[0], states_of(6)
    else:
        energy = MLP(hidden=(16,)).build(6, generator=generator())
        x = torch.randn(33, 6, generator=generator())
    objective = ContrastiveDivergence(n_steps=0)
    state = objective.init(energy, x, generator=generator())
    loss = objective(energy, x, state, generator=generator())
    assert loss.value.item() == 0.0
    assert torch.equal(gradients(loss.value, energy).abs().max(), loss.value)


def test_bias_falls_in_the_number_of_steps_and_vanishes():
    energy = FreeEnergy().build(6, generator=generator(1), n_hidden=4, scale=1.5)
    patterns = states_of(6)[[3, 12, 48, 63]]
    x = patterns.repeat(2000, 1)
    truth = gradients(-mean_log_likelihood(energy, patterns), energy)
    bias = []
    for k in (1, 3, 1000):
        objective = ContrastiveDivergence(n_steps=k, sampler=BlockGibbs())
        state = objective.init(energy, x, generator=generator())
        loss = objective(energy, x, state, generator=generator(2))
        miss = gradients(loss.value, energy) - truth
        bias.append(float(miss.norm() / truth.norm()))
    assert bias[0] > 4 * bias[1] > 8 * bias[2]
    assert bias[2] < 0.02


@pytest.mark.parametrize("persistent", [False, True])
def test_each_step_starts_where_the_one_before_ended(persistent):
    """The trap: k steps that all start at the data are one step."""
    sampler, x = Counting(), torch.zeros(5, 2)
    objective = ContrastiveDivergence(4, sampler, persistent, n_replay=5, reinit=0.0)
    energy = Quadratic().build(2)
    state = objective.init(energy, x, generator=generator())
    for call in range(2):
        objective(energy, x, state, generator=generator(call))
    starts = [float(seen[0, 0]) for seen in sampler.seen]
    again = [4, 5, 6, 7] if persistent else [0, 1, 2, 3]
    assert starts == [0, 1, 2, 3, *again]


def test_chains_persist_in_train_mode_only():
    objective = ContrastiveDivergence(
        n_steps=3, sampler=Counting(), persistent=True, n_replay=8, reinit=0.0
    )
    energy, x = Quadratic().build(1), torch.zeros(5, 1)
    state = objective.init(energy, x, generator=generator())
    objective(energy, x, state.train(), generator=generator())
    assert sorted(state.chains[:, 0].tolist()) == [0.0] * 3 + [3.0] * 5
    objective(energy, x, state.eval(), generator=generator())
    assert sorted(state.chains[:, 0].tolist()) == [0.0] * 3 + [3.0] * 5


def test_restarts_come_at_the_given_rate_from_the_data():
    objective = ContrastiveDivergence(
        n_steps=0, persistent=True, n_replay=4000, reinit=0.2
    )
    energy, x = Quadratic().build(2), torch.zeros(4000, 2)
    state = objective.init(energy, x, generator=generator())
    objective(energy, x + 7, state, generator=generator())
    share = (state.chains == 7).double().mean().item()
    assert share == pytest.approx(0.2, abs=0.02)
    assert torch.equal(state.chains[:, 0], state.chains[:, 1])


def test_chains_carry_no_graph():
    """The loss reaches the weights through the end points alone."""
    energy = Quadratic().build(2)
    x = torch.randn(20, 2, generator=generator())
    objective = ContrastiveDivergence(n_steps=3, sampler=ULA(step_size=0.3))
    loss = objective(energy, x, nn.Module(), generator=generator(1)).value
    kernel, g = objective.sampler, generator(1)
    state = kernel.init(energy, x)
    for _ in range(3):
        state, _ = kernel.step(energy, state, generator=g)
    expected = energy(x).mean() - energy(state.x.detach()).mean()
    assert_close(gradients(loss, energy), gradients(expected, energy))


def bars():
    """Return 12 pixels, 3 x 4: full rows or full columns, each at even odds."""
    rows = states_of(3)[:, :, None].expand(8, 3, 4).reshape(8, 12)
    columns = states_of(4)[:, None, :].expand(16, 3, 4).reshape(16, 12)
    return torch.cat([rows.repeat(2, 1), columns])


def trained(energy, loss, n_steps, rate):
    """Train by stochastic gradients with momentum and a falling rate."""
    optimizer = torch.optim.SGD(energy.parameters(), rate, momentum=0.5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, n_steps)
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    return energy


@pytest.mark.slow
def test_persistent_chains_come_near_exact_maximum_likelihood_on_bars():
    x = bars()
    likelihoods = []
    objective = ContrastiveDivergence(
        n_steps=5, sampler=BlockGibbs(), persistent=True, n_replay=512, reinit=0.0
    )
    for exact in (True, False):
        energy = FreeEnergy().build(12, generator=generator(3), scale=0.1)
        g = generator(4)
        state = objective.init(energy, x, generator=g)
        batch = x.repeat(16, 1)

        def loss(exact=exact, energy=energy, state=state, g=g, batch=batch):
            if exact:
                return -mean_log_likelihood(energy, x)
            return objective(energy, batch, state, generator=g).value

        trained(energy, loss, n_steps=2000, rate=0.2)
        likelihoods.append(mean_log_likelihood(energy, x).item())
    assert likelihoods[0] > -3.5  # 12 independent bits have -8.3, bars have -3.0
    assert likelihoods[1] == pytest.approx(likelihoods[0], abs=0.1)


def test_persistent_chains_come_near_exact_maximum_likelihood_of_a_machine():
    """Eight bits without hidden units: the likelihood is concave, its maximum known."""
    truth = Boltzmann().build(8)
    with torch.no_grad():
        W = torch.randn(8, 8, generator=generator(5), dtype=torch.float64)
        truth.W.copy_(1.5 * W)
        odds = (-truth(states_of(8))).softmax(0)
    drawn = torch.multinomial(odds, 2000, True, generator=generator(6))
    x = states_of(8)[drawn]
    best = Boltzmann().build(8)
    trained(best, lambda: -mean_log_likelihood(best, x), 800, rate=1.0)
    objective = ContrastiveDivergence(1, Gibbs(), persistent=True, n_replay=500)
    energy, g = Boltzmann().build(8), generator(7)
    state = objective.init(energy, x, generator=g)
    batches = torch.randint(2000, (800, 200), generator=g)
    batch = iter(x[index] for index in batches)

    def loss():
        return objective(energy, next(batch), state, generator=g).value

    trained(energy, loss, 800, rate=1.0)
    gap = mean_log_likelihood(best, x) - mean_log_likelihood(energy, x)
    assert 0 < gap.item() < 0.1


def test_persistent_langevin_chains_find_the_precision_of_a_gaussian(
    law, rows, descend, precision, relative_error
):
    energy = Quadratic().build(5)
    objective = ContrastiveDivergence(n_steps=5, persistent=True)
    descend(objective, energy, rows, n_steps=400)
    assert relative_error(precision(energy), precision(law)) < 0.05
    assert_close(energy.mean.detach(), law.mean.detach().float(), rtol=0, atol=0.05)


def test_langevin_chains_from_noise_find_the_precision_of_a_gaussian(
    descend, precision, relative_error
):
    law = Quadratic().match(
        torch.tensor([0.5, -0.3]), torch.tensor([[0.8, 0.4], [0.4, 0.6]])
    )
    x = law.sample(20_000, generator=generator())
    start = Frozen(Quadratic().build(2))
    objective = MaximumLikelihood(30, MALA(step_size=0.2), start)
    energy = Quadratic().build(2)
    descend(objective, energy, x, n_steps=300, batch_size=500)
    assert relative_error(precision(energy), precision(law)) < 0.05
    assert_close(energy.mean.detach(), law.mean.detach(), rtol=0, atol=0.05)


def test_energy_penalty_adds_the_squares_of_both_phases():
    energy, x = Quadratic().build(2), torch.randn(9, 2, generator=generator())
    plain, penalised = (
        ContrastiveDivergence(0, energy_penalty=a)(
            energy, x, nn.Module(), generator=generator()
        ).value
        for a in (0.0, 0.3)
    )
    assert_close(penalised - plain, 0.6 * energy(x).square().mean())
