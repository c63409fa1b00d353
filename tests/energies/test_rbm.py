"""The RBM against sums over all of its states."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from skebm.energies import RBM, BernoulliUnits, GaussianUnits
from tests.energies.machines import (
    WIDTHS,
    bits,
    frequencies,
    generator,
    law,
    listed,
    machine,
    table_of,
    variation,
)

KINDS = sorted(WIDTHS)


def every_pair(v, h):
    """Return all pairs of rows of v and h, v changing slowest."""
    return v.repeat_interleave(len(h), 0), h.repeat(len(v), 1)


def joint_energies(rbm, v, h):
    """Return E(v, h) of all pairs, shape (len(v), len(h))."""
    with torch.no_grad():
        return rbm.joint(*every_pair(v, h)).view(len(v), len(h))


@pytest.mark.parametrize("kind", KINDS)
def test_free_energy_sums_over_the_hidden_bits(kind):
    rbm = machine(kind, 12, 8)
    v = table_of(rbm, 20)
    expected = -(-joint_energies(rbm, v, bits(8))).logsumexp(1)
    with torch.no_grad():
        assert_close(rbm(v), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_bits_given_the_row_are_those_of_the_joint_law(kind):
    rbm, h = machine(kind, 12, 8), bits(8)
    v = table_of(rbm, 20)
    expected = (-joint_energies(rbm, v, h)).softmax(1)
    with torch.no_grad():
        mean = rbm.hidden_mean(v)
    independent = torch.where(h[None] == 1, mean[:, None], 1 - mean[:, None]).prod(2)
    assert_close(independent, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_given_hidden_bits_are_those_of_the_joint_law(kind):
    rbm, h, (v, cell) = machine(kind), bits(5), listed(kind)
    log_p = -joint_energies(rbm, v, h).T
    with torch.no_grad():
        fields = rbm.visible_fields(h)
        psi = rbm.layer.log_normalizers(fields).sum(1)
        assert_close(rbm.layer.mean(fields), log_p.softmax(1) @ rbm.layer.statistics(v))
        assert_close(h @ rbm.hidden_bias + psi, log_p.logsumexp(1) + cell)


def test_real_columns_given_hidden_bits_are_normal():
    """v | h ~ N(b + W'h, s^2): the joint energy up to a constant of h."""
    rbm, h = machine("gaussian", 12, 8), bits(8)[::17]
    v = torch.randn(30, 12, generator=generator()).double()
    with torch.no_grad():
        mean = rbm.visible_bias + h @ rbm.weight
        normal = Normal(mean, (0.5 * rbm.layer.log_variance).exp())
        expected = normal.log_prob(v[:, None]).sum(2)
        psi = rbm.layer.log_normalizers(mean).sum(1) + h @ rbm.hidden_bias
    assert_close(-joint_energies(rbm, v, h) - psi, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [1, 3, 5, 8])
def test_energies_are_summed_row_by_row(n):
    """The trap: E(v, h) = -v.b - h.c - (v W).h is one number per row."""
    rbm = machine("bits", 3, 5)
    v = table_of(rbm, n)
    h = (torch.rand(n, 5, generator=generator()) < 0.5).double()
    with torch.no_grad():
        W, b, c = rbm.weight, rbm.visible_bias, rbm.hidden_bias
        expected = [-(b @ v[i]) - c @ h[i] - h[i] @ W @ v[i] for i in range(n)]
        assert rbm(v).shape == rbm.joint(v, h).shape == (n,)
        assert_close(rbm.joint(v, h), torch.stack(expected))


def exact_step(rbm, v, h, temperature):
    """Return the law of v' given v under h ~ e^(-E / T), then v' ~ e^(-E / T)."""
    log_p = -joint_energies(rbm, v, h) / temperature
    return log_p.softmax(1) @ log_p.T.softmax(1)


@pytest.mark.parametrize("kind", ["bits", "codes"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_gibbs_step_is_the_transition_of_the_joint_law(kind, temperature):
    rbm, (v, _), n = machine(kind, n_hidden=2), listed(kind), 50_000
    rows = v[:6].repeat_interleave(n, 0)
    with torch.no_grad():
        drawn = rbm.gibbs(rows, temperature=temperature, generator=generator())
        exact = exact_step(rbm, v, bits(2), temperature)
    for i in range(6):
        assert variation(frequencies(drawn[n * i : n * (i + 1)], v), exact[i]) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_gibbs_steps_of_rows_have_their_own_temperatures(kind):
    rbm = machine(kind)
    v = table_of(rbm, 400)
    temperature = torch.linspace(0.3, 3.0, 400).double()[:, None]
    with torch.no_grad():
        drawn = rbm.gibbs(v, temperature=temperature, generator=generator())
        for i in (0, 399):
            same = float(temperature[i])
            again = rbm.gibbs(v, temperature=same, generator=generator())
            assert torch.equal(drawn[i], again[i])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gibbs_steps_leave_rows_and_weights_alone(dtype):
    """In single precision 4,096 values and more take another generator."""
    rbm = machine("bits", 12, 8).to(dtype)
    v = table_of(rbm, 1000).to(dtype)
    kept, weights = v.clone(), [w.clone() for w in rbm.parameters()]
    before = torch.get_rng_state()
    with torch.no_grad():
        first, same = (rbm.gibbs(v, generator=generator()) for _ in range(2))
    assert first.dtype == dtype
    assert torch.equal(first, same)
    assert torch.equal(v, kept)
    assert all(map(torch.equal, rbm.parameters(), weights))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_carry_no_graph(kind):
    rbm = machine(kind)
    assert not rbm.gibbs(table_of(rbm, 5), generator=generator()).requires_grad


def test_built_machine_has_small_weights_and_fair_coins():
    rbm = RBM(100).build(300, generator=generator())
    assert rbm.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert rbm.weight.mean().item() == pytest.approx(0.0, abs=3e-4)
    assert rbm.visible_bias.shape == (300,)
    assert rbm.hidden_bias.shape == (100,)
    assert not rbm.visible_bias.any()
    assert not rbm.hidden_bias.any()
    assert isinstance(rbm.layer, BernoulliUnits)
    other = RBM(100).build(300, generator=generator(1))
    again = RBM(100).build(300, generator=generator())
    assert torch.equal(rbm.weight, again.weight)
    assert not torch.equal(rbm.weight, other.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_matched_machine_without_weights_is_independent_columns(kind):
    """The law of all states has the statistics of the rows, half a row smoothed."""
    rbm, (states, _) = machine(kind), listed(kind)
    v = table_of(rbm, 400)
    torch.nn.init.zeros_(rbm.weight)
    rbm.match(v)
    p = law(rbm, states)
    with torch.no_grad():
        mean = p @ rbm.layer.statistics(states)
        assert_close(mean, rbm.layer.statistics(v).mean(0), rtol=0, atol=5e-3)
        if kind == "gaussian":
            variance = p @ states.square() - (p @ states).square()
            assert_close(variance, v.var(0, correction=0), rtol=1e-6, atol=0)


def test_machine_of_real_columns_is_a_mixture_of_normals():
    """One hidden bit: 0.8 N(b, 1) + 0.2 N(b + W, 1) for the c that makes it so."""
    rbm = RBM(1, GaussianUnits()).build(1).double()
    with torch.no_grad():
        rbm.weight.fill_(3.0)
        rbm.visible_bias.fill_(-1.0)
        rbm.hidden_bias.fill_(math.log(0.25) - (2.0**2 - 1.0) / 2)
    line = torch.linspace(-4, 6, 11).double()[:, None]
    mixture = 0.8 * Normal(-1.0, 1.0).log_prob(line).exp()
    mixture = mixture + 0.2 * Normal(2.0, 1.0).log_prob(line).exp()
    with torch.no_grad():
        shift = rbm(line) + mixture[:, 0].log()
    assert_close(shift, shift[:1].expand(11), rtol=0, atol=1e-9)
