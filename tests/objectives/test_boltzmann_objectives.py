"""Gradients of Boltzmann machines, plain and deep, against autograd and all states."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import RBM
from skebm.objectives import (
    BoltzmannLikelihood,
    DeepBoltzmannLikelihood,
    DrawnRowsLikelihood,
    PseudoLikelihood,
)
from skebm.objectives.boltzmann import Moments, data_moments, set_gradients
from skebm.objectives.deep_boltzmann import LayerMoments
from skebm.objectives.deep_boltzmann import set_gradients as set_deep_gradients
from skebm.partition import LayerSum, StateSum
from skebm.partition.pseudo import pseudo_log_likelihood_of_bits
from skebm.samplers.state_law import law_of
from tests.energies.deep_machines import deep, every_pair, layered_energies, machine
from tests.energies.machines import bits, generator, randomized


def rows(n, d, seed=4):
    return (torch.rand(n, d, generator=generator(seed)) < 0.4).double()


def autograd_of(energy, loss):
    """Return the gradients of a loss in the weights of an energy."""
    return torch.autograd.grad(loss, list(energy.parameters()))


def negative_log_likelihood(energy, x, states):
    return energy(x).mean() + (-energy(states)).logsumexp(0)


@pytest.mark.parametrize("n_hidden", [0, 3])
def test_exact_gradient_is_that_of_autograd(n_hidden):
    energy, x = machine(5, n_hidden), rows(30, 5)
    expected = autograd_of(energy, negative_log_likelihood(energy, x, bits(5)))
    objective = BoltzmannLikelihood(centered=False, weight_decay=0.0)
    state = objective.init(energy, x, generator=generator())
    objective(energy, x, state, generator=generator())
    for weight, gradient in zip(energy.parameters(), expected, strict=True):
        assert_close(weight.grad, gradient, rtol=0, atol=1e-9)


def test_penalty_adds_its_gradient():
    energy, x, gradients = machine(5), rows(30, 5), []
    for decay in (0.0, 0.3):
        objective = BoltzmannLikelihood(centered=False, weight_decay=decay)
        state = objective.init(energy, x, generator=generator())
        objective(energy, x, state, generator=generator())
        gradients.append(energy.couplings.grad)
    assert_close(gradients[1] - gradients[0], 0.3 * energy.couplings.detach())


def test_centered_step_is_a_plain_step_in_centered_coordinates():
    """With E = -(s-m)'L(s-m)/2 - b's: a = b - Lm, dL and db from autograd."""
    energy, x = machine(5), rows(30, 5)
    m = torch.rand(5, generator=generator()).double()
    data, law = data_moments(energy, x), law_of(energy)
    set_gradients(energy, data, Moments(*law.moments()), m)
    plain_L, plain_a = autograd_of(energy, negative_log_likelihood(energy, x, bits(5)))
    i, j = energy.pairs
    # Of (s_i - m_i)(s_j - m_j): the chain rule through a = b - L m.
    d_pairs = plain_L - m[j] * plain_a[i] - m[i] * plain_a[j]
    assert_close(energy.couplings.grad, d_pairs)
    step = torch.zeros(5, 5).double()
    step[i, j] = d_pairs
    assert_close(energy.bias.grad, plain_a - (step + step.T) @ m)


@pytest.mark.parametrize("n_hidden", [0, 2])
def test_persistent_chains_have_the_moments_of_the_model(n_hidden):
    energy, x = machine(5, n_hidden), rows(30, 5)
    exact = BoltzmannLikelihood(weight_decay=0.0)
    chains = BoltzmannLikelihood("persistent", 5, 5000, weight_decay=0.0)
    found = []
    for objective in (exact, chains):
        state = objective.init(energy, x, generator=generator())
        for k in range(6):
            objective(energy, x, state, generator=generator(k))
        found.append([weight.grad.clone() for weight in energy.parameters()])
    for a, b in zip(*found, strict=True):
        assert_close(a, b, rtol=0, atol=0.03)
    state.eval()
    kept = state.chains.clone()
    objective(energy, x, state, generator=generator())
    assert torch.equal(state.chains, kept)


def mean_energy(energy, x):
    with torch.no_grad():
        return float(energy(x).mean())


def test_criteria_are_negative_log_likelihoods():
    energy, x = machine(5, 2), rows(30, 5)
    objective = BoltzmannLikelihood()
    state = objective.init(energy, x, generator=generator())
    expected = mean_energy(energy, x) + StateSum()(energy).value
    found = objective.criterion(energy, x, state, generator=generator())
    assert found == pytest.approx(expected, abs=1e-9)
    wide = machine(21, scale=0.3)
    found = objective.criterion(wide, rows(9, 21), state, generator=generator())
    expected = mean_energy(wide, rows(9, 21)) + StateSum()(wide).value
    assert found == pytest.approx(expected, abs=0.1)
    dbm, deep_objective = deep(5, 4, 3), DeepBoltzmannLikelihood()
    state = deep_objective.init(dbm, x, generator=generator())
    expected = mean_energy(dbm, x) + LayerSum()(dbm.folded()).value
    found = deep_objective.criterion(dbm, x, state, generator=generator())
    assert found == pytest.approx(expected, abs=1e-9)
    wide = deep(13, 12, 3, scale=0.3)
    state = deep_objective.init(wide, rows(9, 13), generator=generator())
    expected = mean_energy(wide, rows(9, 13)) + LayerSum()(wide.folded()).value
    found = deep_objective.criterion(wide, rows(9, 13), state, generator=generator())
    assert found == pytest.approx(expected, abs=0.1)


def test_pseudo_likelihood_is_what_it_says():
    energy, x = machine(5), rows(30, 5)
    objective = PseudoLikelihood(weight_decay=0.3)
    state = objective.init(energy, x, generator=generator())
    loss = objective(energy, x, state, generator=generator()).value
    with torch.no_grad():
        plain = -float(pseudo_log_likelihood_of_bits(energy, x).mean())
        penalty = 0.15 * float(energy.couplings.square().sum())
    assert loss.item() == pytest.approx(plain + penalty)
    found = objective.criterion(energy, x, state, generator=generator())
    assert found == pytest.approx(plain)
    with pytest.raises(ValueError, match="n_hidden=2"):
        objective.init(machine(5, 2), x, generator=generator())


def expectations(dbm, states, p):
    """Return the moments of the layers under a law of all their states."""
    layers = states.split(dbm.sizes, 1)
    means = [p @ h for h in layers]
    pairs = [layers[i + 1].T @ (p[:, None] * layers[i]) for i in range(len(layers) - 1)]
    return LayerMoments(means, pairs)


@pytest.mark.parametrize("sizes", [(5, 4, 3), (4, 2, 3, 2)])
def test_deep_gradient_with_exact_expectations_is_that_of_autograd(sizes):
    dbm, x = deep(*sizes), rows(6, sizes[0])
    h, v = bits(sum(sizes[1:])), bits(sizes[0])
    with torch.no_grad():
        s, given = every_pair(v, h), every_pair(x, h)
        model = (-layered_energies(dbm, s)).softmax(0)
        posterior = (-layered_energies(dbm, given)).view(len(x), -1).softmax(1)
    data = expectations(dbm, given, posterior.flatten() / len(x))
    zeros = [torch.zeros_like(b) for b in dbm.biases]
    set_deep_gradients(dbm, data, expectations(dbm, s, model), zeros)
    free = -(-layered_energies(dbm, s)).view(len(v), -1).logsumexp(1)
    rows_free = -(-layered_energies(dbm, given)).view(len(x), -1).logsumexp(1)
    expected = autograd_of(dbm, rows_free.mean() + (-free).logsumexp(0))
    for weight, gradient in zip(dbm.parameters(), expected, strict=True):
        assert_close(weight.grad, gradient, rtol=0, atol=1e-9)


def test_deep_centered_step_is_a_plain_step_in_centered_coordinates():
    """dW_l is that of the centred pairs; db_l takes off what dW does to the biases."""
    dbm = deep(4, 3, 2)
    plain = [randomized(torch.nn.Linear(a, b), seed=a) for a, b in [(4, 3), (3, 2)]]
    pairs = [layer.weight.detach() for layer in plain]
    means = [torch.randn(n, generator=generator(n)).double() for n in (4, 3, 2)]
    m = [torch.rand(n, generator=generator(n)).double() for n in (4, 3, 2)]
    nothing = LayerMoments([0 * u for u in means], [0 * w for w in pairs])
    set_deep_gradients(dbm, LayerMoments(means, pairs), nothing, m)
    centered = [
        -(w - torch.outer(m[i + 1], means[i]) - torch.outer(means[i + 1], m[i]))
        for i, w in enumerate(pairs)
    ]
    for weight, expected in zip(dbm.weights, centered, strict=True):
        assert_close(weight.grad, expected)
    corrections = [
        centered[0].T @ m[1],
        centered[0] @ m[0] + centered[1].T @ m[2],
        centered[1] @ m[1],
    ]
    for bias, mean, correction in zip(dbm.biases, means, corrections, strict=True):
        assert_close(bias.grad, -mean - correction)


def test_deep_chains_have_the_moments_of_the_model():
    """Means of many chains against sums over all states of all layers."""
    dbm, x = deep(5, 4, 3, scale=0.5), rows(30, 5)
    objective = DeepBoltzmannLikelihood(5, 8000, 50, centered=False, weight_decay=0.0)
    state = objective.init(dbm, x, generator=generator())
    for k in range(6):
        objective(dbm, x, state, generator=generator(k))
    s = bits(12)
    with torch.no_grad():
        model = expectations(dbm, s, (-layered_energies(dbm, s)).softmax(0))
        means = dbm.mean_field(x, 50)
        layers = dbm.layers(means)
    for i, weight in enumerate(dbm.weights):
        expected = model.pairs[i] - layers[i + 1].T @ layers[i] / len(x)
        assert_close(weight.grad, expected, rtol=0, atol=0.03)
    for bias, mean, layer in zip(dbm.biases, model.means, layers, strict=True):
        assert_close(bias.grad, mean - layer.mean(0), rtol=0, atol=0.03)


def test_drawn_rows_have_the_moments_of_their_probabilities():
    rbm, x = RBM(3).build(4), torch.tensor([[0.2, 0.9, 0.5, 0.0]]).repeat(20_000, 1)
    objective = DrawnRowsLikelihood(n_chains=20_000)
    state = objective.init(rbm, x, generator=generator())
    assert set(state.chains.unique().tolist()) == {0.0, 1.0}
    seen = []
    kind = type(objective).__mro__[1]
    original = kind.__call__

    def spy(self, energy, batch, state, *, generator):
        seen.append(batch)
        return original(self, energy, batch, state, generator=generator)

    kind.__call__ = spy
    try:
        objective(rbm, x, state, generator=generator())
    finally:
        kind.__call__ = original
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert_close(seen[0].mean(0), x[0], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (BoltzmannLikelihood("data"), "chains='data'"),
        (BoltzmannLikelihood(n_steps=0), "n_steps=0"),
        (BoltzmannLikelihood(n_chains=0), "n_chains=0"),
        (BoltzmannLikelihood(weight_decay=-1.0), "weight_decay=-1"),
        (PseudoLikelihood("none"), "weight_decay='none'"),
    ],
)
def test_bad_parameters_are_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        objective.init(machine(3), rows(9, 3), generator=generator())


@pytest.mark.parametrize("name", ["n_steps", "n_chains", "n_mean_field"])
def test_bad_deep_parameters_are_refused(name):
    objective = DeepBoltzmannLikelihood(**{name: 0})
    with pytest.raises(ValueError, match=f"{name}=0"):
        objective.init(deep(3, 2, 2), rows(9, 3), generator=generator())


def test_other_energies_and_large_sums_are_refused():
    rbm, x, g = RBM(2).build(3), rows(9, 3), generator()
    for objective in (BoltzmannLikelihood(), PseudoLikelihood()):
        with pytest.raises(TypeError, match="Got RBM, but this objective needs"):
            objective.init(rbm, x, generator=g)
    with pytest.raises(TypeError, match="needs a DeepBoltzmann, but got RBM"):
        DeepBoltzmannLikelihood().init(rbm, x, generator=g)
    with pytest.raises(ValueError, match="the first one up to 20 units"):
        BoltzmannLikelihood().init(machine(21), rows(9, 21), generator=g)
