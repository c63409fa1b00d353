"""The conditional RBM against sums over its states, its machines and its draws."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import ContextRBM
from skebm.objectives import ConditionalLikelihood
from skebm.partition import LayerSum, log_partition_given
from skebm.partition.conditional_rbm import annealed_given
from skebm.samplers import draw_given
from skebm.samplers.conditional_rbm import listed_states
from tests.energies.machines import (
    WIDTHS,
    bits,
    frequencies,
    generator,
    listed,
    randomized,
    units,
    variation,
)

KINDS = sorted(WIDTHS)
DISCRETE = ["bits", "codes"]


def conditional(kind, n_hidden=5, n_context=2, scale=1.0):
    """Return a conditional RBM with random weights whose states can be listed."""
    d = WIDTHS[kind]
    energy = ContextRBM(n_context, n_hidden, units(kind, d)).build(n_context + d)
    energy = randomized(energy, scale)
    energy.machine.start.normal_(0, 0.5, generator=generator(9))
    return energy


def contexts(n=6, n_context=2, seed=1):
    return torch.randn(n, n_context, generator=generator(seed)).double()


def hidden_states(n):
    return bits(n) if n else torch.zeros(1, 0).double()


def beside(u, v):
    """Return every context with every row, contexts changing slowest."""
    return torch.cat([u.repeat_interleave(len(v), 0), v.repeat(len(u), 1)], 1)


def log_laws(energy, u, kind):
    """Return log p(v | u) of all rows by brute force over v and h, and log Z(u)."""
    (v, cell), h = listed(kind), hidden_states(energy.n_hidden)
    x = beside(u, v)
    pairs = x.repeat_interleave(len(h), 0), h.repeat(len(x), 1)
    with torch.no_grad():
        e = -(-energy.joint(*pairs)).view(len(x), len(h)).logsumexp(1)
    log_w = -e.view(len(u), len(v)) + cell
    log_z = log_w.logsumexp(1)
    return log_w - log_z[:, None], log_z


@pytest.mark.parametrize("kind", KINDS)
def test_free_energy_sums_over_the_hidden_bits(kind):
    energy, h = conditional(kind), bits(5)
    x = beside(contexts(), listed(kind)[0][::7])
    pairs = x.repeat_interleave(len(h), 0), h.repeat(len(x), 1)
    with torch.no_grad():
        expected = -(-energy.joint(*pairs)).view(len(x), -1).logsumexp(1)
        assert_close(energy(x), expected, rtol=1e-10, atol=1e-9)


def test_joint_energy_is_the_formula():
    """E(v, h; u) = -(b + F u).v - (c + G u).h - h.W v for bits, one number per row."""
    energy = conditional("bits", 3)
    x = beside(contexts(), bits(4)[3:8])
    h = bits(3)[torch.arange(len(x)) % 8]
    machine = energy.machine
    W, b, c = machine.weight, machine.visible_bias, machine.hidden_bias
    F, G = energy.visible_context, energy.hidden_context
    with torch.no_grad():
        expected = [
            -(b + F @ r[:2]) @ r[2:] - (c + G @ r[:2]) @ k - k @ W @ r[2:]
            for r, k in zip(x, h, strict=True)
        ]
        assert_close(energy.joint(x, h), torch.stack(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_hidden", [0, 3, 7])
def test_log_partition_of_every_context_by_enumeration(kind, n_hidden):
    """Seven hidden bits have more states than bits and codes; the others fewer."""
    energy, u = conditional(kind, n_hidden, scale=0.7), contexts()
    _, expected = log_laws(energy, u, kind)
    with torch.no_grad():
        found = log_partition_given(energy, u)
    assert_close(found, expected, rtol=0, atol=1e-6)
    states = listed_states(energy)
    assert states.visible == (kind in DISCRETE and len(listed(kind)[0]) <= 2**n_hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_machine_of_one_context_is_an_rbm(kind):
    energy, u = conditional(kind), contexts(1)
    rbm, v = energy.at(u[0]), listed(kind)[0][::11]
    with torch.no_grad():
        assert_close(energy(beside(u, v)), rbm(v), rtol=0, atol=1e-9)
        log_z = log_partition_given(energy, u)
    assert LayerSum()(rbm).value == pytest.approx(log_z.item(), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_without_couplings_to_the_context_it_is_the_unconditional_rbm(kind):
    energy, u = conditional(kind), contexts()
    with torch.no_grad():
        energy.visible_context.zero_()
        energy.hidden_context.zero_()
        v = listed(kind)[0]
        e = energy(beside(u, v)).view(len(u), -1)
        assert_close(e, energy.machine(v).expand_as(e), rtol=0, atol=1e-9)
        log_z = LayerSum()(energy.machine).value
        assert_close(log_partition_given(energy, u), torch.full((6,), log_z).double())


@pytest.mark.parametrize("kind", KINDS)
def test_annealed_log_partition_of_every_context(kind):
    energy, u = conditional(kind, scale=0.5), contexts()
    with torch.no_grad():
        exact = log_partition_given(energy, u)
        found = annealed_given(energy, u, 500, generator=generator())
    assert_close(found, exact, rtol=0, atol=0.02)


def test_contexts_of_a_large_machine_are_annealed_by_themselves():
    """13 hidden bits and 14 visible ones: the bits of one context ignore the others."""
    energy = randomized(ContextRBM(2, 13).build(16), 0.3)
    energy.machine.start.normal_(0, 0.3, generator=generator(9))
    u = contexts(3)
    assert listed_states(energy) is None
    with torch.no_grad():
        together = log_partition_given(energy, u, seed=3)
        alone = log_partition_given(energy, u[1:2], seed=3)
        exact = [LayerSum()(energy.at(row)).value for row in u]
    assert together[1] == alone[0]
    assert_close(together, torch.tensor(exact).double(), rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", DISCRETE)
@pytest.mark.parametrize("n_hidden", [2, 7])
def test_draws_follow_the_law_of_their_context(kind, n_hidden):
    energy, u, n = conditional(kind, n_hidden), contexts(3), 20_000
    log_p, _ = log_laws(energy, u, kind)
    g = generator()
    with torch.no_grad():
        drawn = draw_given(energy, u.repeat_interleave(n, 0), generator=g).view(
            3, n, -1
        )
    for i in range(3):
        found = frequencies(drawn[i], listed(kind)[0])
        assert variation(found, log_p[i].exp()) < 0.025


def test_annealed_draws_follow_the_law_of_their_context(monkeypatch):
    monkeypatch.setattr("skebm.samplers.conditional_rbm.MOST_STATES", 1)
    monkeypatch.setattr(listed_states, "__defaults__", (1,))
    energy, u, n = conditional("codes", 3), contexts(2), 4000
    log_p, _ = log_laws(energy, u, "codes")
    with torch.no_grad():
        drawn = draw_given(energy, u.repeat_interleave(n, 0), generator=generator())
    for i in range(2):
        found = frequencies(drawn[n * i : n * (i + 1)], listed("codes")[0])
        assert variation(found, log_p[i].exp()) < 0.045


def test_draws_of_real_columns_have_the_moments_of_their_context():
    energy, u, n = conditional("gaussian", 3, scale=0.5), contexts(2), 40_000
    log_p, _ = log_laws(energy, u, "gaussian")
    line = listed("gaussian")[0][:, 0]
    with torch.no_grad():
        drawn = draw_given(energy, u.repeat_interleave(n, 0), generator=generator())
    for i, p in enumerate(log_p.exp()):
        rows, mean = drawn[n * i : n * (i + 1), 0], p @ line
        sd = float((p @ (line - mean).square()).sqrt())
        assert abs(float(rows.mean() - mean)) < 4 * sd / n**0.5
        assert rows.std().item() == pytest.approx(sd, rel=0.03)


@pytest.mark.parametrize("kind", DISCRETE)
def test_gibbs_steps_keep_the_context_and_the_law(kind):
    energy, u, n = conditional(kind, 2), contexts(2), 30_000
    v = listed(kind)[0]
    log_p, _ = log_laws(energy, u, kind)
    start = torch.multinomial(log_p.exp(), n, True, generator=generator()).flatten()
    x = torch.cat([u.repeat_interleave(n, 0), v[start]], 1)
    with torch.no_grad():
        moved = energy.gibbs(x, generator=generator(5))
    assert torch.equal(moved[:, :2], x[:, :2])
    assert not torch.equal(moved, x)
    for i in range(2):
        found = frequencies(moved[n * i : n * (i + 1), 2:], v)
        assert variation(found, log_p[i].exp()) < 0.025


def exact_gradients(energy, x, kind):
    """Return d mean(-log p(v | u)) by finite differences of the brute-force sums."""

    def loss():
        u, v = energy.split(x)
        log_p, _ = log_laws(energy, u, kind)
        place = (listed(kind)[0][None] == v[:, None]).all(2).int().argmax(1)
        return -log_p[torch.arange(len(x)), place].mean()

    found = []
    with torch.no_grad():
        for weight in energy.parameters():
            gradient, flat = torch.empty_like(weight), weight.view(-1)
            for j in range(len(flat)):
                kept = flat[j].clone()
                flat[j] = kept + 1e-5
                high = loss()
                flat[j] = kept - 1e-5
                low = loss()
                flat[j] = kept
                gradient.view(-1)[j] = (high - low) / 2e-5
            found.append(gradient)
    return found


@pytest.mark.parametrize("kind", DISCRETE)
def test_gradient_of_the_exact_likelihood(kind):
    energy = conditional(kind, 3)
    rows = listed(kind)[0]
    x = torch.cat([contexts(7), rows[torch.arange(7) * 2]], 1)
    objective = ConditionalLikelihood(weight_decay=0.0)
    state = objective.init(energy, x, generator=generator())
    objective(energy, x, state, generator=generator()).value.backward()
    expected = exact_gradients(energy, x, kind)
    for weight, gradient in zip(energy.parameters(), expected, strict=True):
        assert_close(weight.grad, gradient, rtol=0, atol=1e-6)


def test_prior_is_normal_around_independent_columns():
    """The penalty of 3 / variance, shared by 10 rows; variances as 3 rows one off."""
    energy = conditional("gaussian", 2)
    energy.machine.start.fill_(0.7)
    x = torch.cat([contexts(10), torch.ones(10, 1).double()], 1)
    losses = []
    for decay in (0.0, 3.0):
        objective = ConditionalLikelihood(n_steps=0, weight_decay=decay)
        state = objective.init(energy, x, generator=generator())
        losses.append(objective(energy, x, state, generator=generator()).value)
    squares = sum(float(w.detach().square().sum()) for w in energy.parameters())
    squares -= float(energy.layer.log_variance.detach().square())
    b = float(energy.machine.visible_bias.detach())
    log_variance = energy.layer.log_variance.detach()
    expected = squares - b**2 + (b - 0.7) ** 2
    expected += float(log_variance + (-log_variance).exp())
    assert float(losses[0].detach()) == 0.0
    assert float(losses[1].detach()) == pytest.approx(0.5 * 3 / 10 * expected)


def test_contrastive_divergence_nears_the_exact_gradient():
    """CD-0 has none; CD-k of many chains meets the exact one as k grows."""
    energy = conditional("codes", 3, scale=0.7)
    rows = listed("codes")[0]
    x = torch.cat([contexts(4), rows[[0, 5, 11, 20]]], 1).repeat(4000, 1)
    gradients = {}
    for k, most in ((0, 0), (1, 0), (30, 0), (5, 512)):
        energy.zero_grad()
        objective = ConditionalLikelihood(k, most, weight_decay=0.0)
        state = objective.init(energy, x, generator=generator())
        objective(energy, x, state, generator=generator(2)).value.backward()
        gradients[k] = torch.cat([w.grad.flatten() for w in energy.parameters()])
    exact = gradients.pop(5)
    error = {k: float((g - exact).norm() / exact.norm()) for k, g in gradients.items()}
    assert gradients[0].abs().max() == 0
    assert error[30] < 0.05 < error[1] < 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_criterion_is_the_held_out_likelihood(kind):
    energy, rows = conditional(kind), listed(kind)[0]
    x = torch.cat([contexts(5), rows[:: len(rows) // 5][:5]], 1)
    objective = ConditionalLikelihood()
    state = objective.init(energy, x, generator=generator())
    with torch.no_grad():
        expected = (energy(x) + log_partition_given(energy, x[:, :2])).mean()
    found = objective.criterion(energy, x, state, generator=generator())
    assert found == pytest.approx(float(expected), abs=1e-9)


def test_criterion_of_a_large_machine_is_annealed():
    energy = randomized(ContextRBM(2, 13).build(16), 0.3)
    v = (torch.rand(40, 14, generator=generator()) < 0.5).double()
    x = torch.cat([contexts(40), v], 1)
    objective = ConditionalLikelihood()
    state = objective.init(energy, x, generator=generator())
    with torch.no_grad():
        exact = [LayerSum()(energy.at(row)).value for row in x[:, :2]]
        expected = float((energy(x) + torch.tensor(exact)).mean())
    found = objective.criterion(energy, x, state, generator=generator())
    assert found == pytest.approx(expected, abs=0.05)


def test_wrong_energies_and_widths_are_refused():
    with pytest.raises(ValueError, match="n_context=3, but expected at least one"):
        ContextRBM(3).build(3)
    energy = conditional("bits").machine
    with pytest.raises(TypeError, match="needs a ContextRBM, but got RBM"):
        ConditionalLikelihood().init(energy, bits(4), generator=generator())
    with pytest.raises(ValueError, match="n_steps=-1, but expected a number >= 0"):
        ConditionalLikelihood(n_steps=-1).init(
            conditional("bits"), bits(6), generator=generator()
        )
