"""Boltzmann machines, deep ones and belief networks against sums over all states."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Boltzmann, DeepBelief, DeepBoltzmann
from skebm.energies.deep_boltzmann import Halves
from skebm.partition import LayerSum
from tests.energies.deep_machines import (
    belief,
    deep,
    every_pair,
    layered_energies,
    machine,
)
from tests.energies.machines import bits, generator


@pytest.mark.parametrize("n_hidden", [0, 1, 4])
def test_free_energy_sums_over_the_hidden_bits(n_hidden):
    boltzmann, v, h = machine(6, n_hidden), bits(6), bits(n_hidden or 1)
    h = h if n_hidden else h[:1, :0]
    s, (i, j) = every_pair(v, h), boltzmann.pairs
    with torch.no_grad():
        e = -(s[:, i] * s[:, j]) @ boltzmann.couplings - s @ boltzmann.bias
        assert_close(boltzmann.joint(s), e)
        expected = -(-e.view(len(v), -1)).logsumexp(1)
        assert_close(boltzmann(v), expected, rtol=0, atol=1e-9)


def test_couplings_are_symmetric_without_a_diagonal():
    L = machine(5, 2).matrix()
    assert torch.equal(L, L.T)
    assert not L.diagonal().any()
    assert L.count_nonzero() == 42


def test_bits_are_spins_with_a_quarter_of_the_couplings():
    """E(s) is the Ising energy of 2s - 1 with J = L/4, up to a constant."""
    boltzmann, s = machine(5), bits(5)
    with torch.no_grad():
        L, a = boltzmann.matrix(), boltzmann.bias
        J, field, spins = L / 4, a / 2 + L.sum(1) / 4, 2 * s - 1
        ising = -0.5 * ((spins @ J) * spins).sum(1) - spins @ field
        shift = boltzmann(s) - ising
    assert_close(shift, shift[:1].expand(32))


@pytest.mark.parametrize("n_hidden", [-1, 17])
def test_too_many_hidden_bits_are_refused(n_hidden):
    with pytest.raises(ValueError, match=f"n_hidden={n_hidden}.*at most 16"):
        Boltzmann(n_hidden).build(3)


@pytest.mark.parametrize("sizes", [(6, 5, 4), (5, 3, 4), (4, 3, 2, 3), (3, 2, 2, 2, 2)])
def test_deep_free_energy_is_exact_and_bounded_by_the_mean_field(sizes):
    """Both ways of listing one half; the bound holds for every row."""
    dbm, v, h = deep(*sizes), bits(sizes[0]), bits(sum(sizes[1:]))
    with torch.no_grad():
        e = layered_energies(dbm, every_pair(v, h)).view(len(v), -1)
        expected = -(-e).logsumexp(1)
        assert_close(dbm.marginal(v), expected, rtol=0, atol=1e-9)
        assert dbm.is_exact
        assert_close(dbm(v), expected, rtol=0, atol=1e-9)
        bounds = [dbm.variational(v, n) for n in (1, 2, 5, 50)]
        for looser, tighter in itertools.pairwise(bounds):
            assert (tighter <= looser + 1e-9).all()
        gap = bounds[-1] - expected
        assert (gap >= -1e-9).all()
        assert 1e-3 < gap.mean() < 1.0


def test_mean_field_is_exact_where_hidden_bits_are_independent():
    dbm, v = deep(6, 5, 4), bits(6)
    torch.nn.init.zeros_(dbm.weights[1])
    with torch.no_grad():
        assert_close(dbm.variational(v), dbm.marginal(v), rtol=0, atol=1e-9)


def test_energies_of_wide_layers_are_the_bound():
    dbm = deep(4, 11, 12, scale=0.1)
    assert not dbm.is_exact
    assert torch.equal(dbm(bits(4)), dbm.variational(bits(4)))


@pytest.mark.parametrize("sizes", [(6, 5), (6, 5, 4), (4, 3, 2, 3), (3, 2, 2, 2, 2)])
def test_folded_machine_is_the_same_law(sizes):
    """E of the RBM of even and odd layers is E of the layers, state by state."""
    dbm, s = deep(*sizes), bits(sum(sizes))
    layers = s.split(sizes, 1)
    halves = Halves(torch.cat(layers[::2], 1), torch.cat(layers[1::2], 1))
    with torch.no_grad():
        e = layered_energies(dbm, s)
        assert_close(dbm.folded().joint(*halves), e)
        assert LayerSum()(dbm.folded()).value == pytest.approx(
            float((-e).logsumexp(0)), abs=1e-6
        )
    assert all(map(torch.equal, dbm.layers(halves), layers))


def true_log_likelihoods(network):
    """Return log p*(v) of all v of a network of two hidden layers, by sums over h1."""
    bottom, top = network.machines
    v, h = bits(bottom.layer.n_features), bits(bottom.n_hidden)
    with torch.no_grad():
        fields = bottom.visible_fields(h)
        softplus = torch.nn.functional.softplus
        given = v @ fields.T - softplus(fields).sum(1)
        return v, (given - top(h)).logsumexp(1), given - top(h)


def test_belief_weights_average_to_the_likelihood_and_bound_it():
    """E_q[p* / q] = p*(v): a law that holds for q, p and their logarithms only."""
    network = belief(5, 4, 3)
    v, expected, joint = true_log_likelihoods(network)
    noise = [torch.rand(50, 4, generator=generator(k)).double() for k in range(200)]
    found = []
    with torch.no_grad():
        for network.noise0 in noise:
            found.append(network.log_weights(v))
            plain, tight = network.variational(v), network(v)
            assert (tight <= plain + 1e-9).all()
        mean = torch.cat(found, 1)
        assert_close(mean.exp().mean(1), expected.exp(), rtol=0.05, atol=0)
        up = network.machines[0].hidden_fields(v)
        log_q = up @ bits(4).T - torch.nn.functional.softplus(up).sum(1)[:, None]
        bound = (log_q.exp() * (joint - log_q)).sum(1)
        assert_close(mean.mean(1), bound, rtol=0, atol=0.1)
        assert (bound < expected).all()


def test_belief_network_of_one_layer_is_the_rbm():
    network, v = belief(5, 4), bits(5)
    with torch.no_grad():
        assert_close(network(v), network.top(v))


def test_upside_down_layer_leaves_the_bound_where_it_was():
    """p(v, h1) is that of the RBM, so q is exact and every weight is p*(v)."""
    network, v = belief(5, 4, 5), bits(5)
    bottom, top = network.machines
    with torch.no_grad():
        top.weight.copy_(bottom.weight.T)
        top.visible_bias.copy_(bottom.hidden_bias)
        top.hidden_bias.copy_(bottom.visible_bias)
        weights = network.log_weights(v)
        assert_close(weights, -bottom(v)[:, None].expand(-1, 50))


def test_ways_up_and_down():
    network = belief(5, 4, 3, 2, scale=40.0)
    v = bits(5)
    with torch.no_grad():
        means = network.up(v)
        assert [m.shape[1] for m in means] == [4, 3, 2]
        for machine_, below, mean in zip(
            network.machines, [v, *means], means, strict=False
        ):
            assert_close(machine_.hidden_mean(below), mean)
        h = bits(3)
        fields = network.machines[1].visible_fields(h)
        drawn = network.down(h, generator=generator())
        sure = fields.abs() > 20
        assert sure.double().mean() > 0.5
        assert torch.equal(drawn[sure], (fields > 0).double()[sure])


@pytest.mark.parametrize("kind", [DeepBoltzmann, DeepBelief])
@pytest.mark.parametrize("n_hidden", [(), (3, 0)])
def test_networks_without_units_are_refused(kind, n_hidden):
    with pytest.raises(ValueError, match="one integer >= 1 for every hidden layer"):
        kind(n_hidden).build(3)
