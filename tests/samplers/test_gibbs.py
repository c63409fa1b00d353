"""Block Gibbs, and its steps on the way to an RBM, against all states."""

import pickle

import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

import skebm.samplers
from skebm.energies import Quadratic
from skebm.samplers import AnnealedLayers, BlockGibbs, run_chains
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


def draws(rbm, *, temperature=1.0, n_chains=1000, n_draws=100, seed=0):
    x = table_of(rbm, n_chains)
    chains = run_chains(
        BlockGibbs(temperature), rbm, x, n_draws=n_draws, generator=generator(seed)
    )
    return chains.draws.flatten(0, 1)


def test_visible_states_come_as_often_as_they_should():
    rbm, v = machine("bits", 8, 6), bits(8)
    drawn = draws(rbm, n_chains=2000, n_draws=200)
    assert variation(frequencies(drawn, v), law(rbm, v)) < 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_that_of_both_layers(kind, temperature):
    """v has the marginal of exp(-E(v, h) / T): moments of phi and v^2."""
    rbm, h, (v, _) = machine(kind, scale=0.7), bits(5), listed(kind)
    drawn = draws(rbm, temperature=temperature)
    with torch.no_grad():
        pairs = v.repeat_interleave(32, 0), h.repeat(len(v), 1)
        log_p = -rbm.joint(*pairs).view(len(v), 32) / temperature
        p = log_p.flatten().softmax(0).view(len(v), 32).sum(1)

        def statistics(rows):
            return torch.cat([rbm.layer.statistics(rows), rows.square()], 1)

        mean = p @ statistics(v)
        sd = (p @ (statistics(v) - mean).square()).sqrt()
        error = (statistics(drawn).mean(0) - mean).abs() / sd
    assert error.max() < 0.03


def test_state_and_step():
    rbm, sampler = machine("bits", 6, 4), BlockGibbs()
    v = table_of(rbm, 50)
    kept = v.clone()
    state = sampler.init(rbm, v)
    assert torch.equal(state.x, v)
    for _ in range(3):
        state, info = sampler.step(rbm, state, generator=generator())
        with torch.no_grad():
            assert_close(state.e, rbm(state.x))
        assert info.acceptance.tolist() == [1.0] * 50
        assert info.accepted.all()
    assert torch.equal(v, kept)
    assert state.x.dtype == torch.float64
    assert state.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_states_carry_no_graph(kind):
    rbm, sampler = machine(kind), BlockGibbs()
    state = sampler.init(rbm, table_of(rbm, 5))
    assert not state.e.requires_grad
    state, _ = sampler.step(rbm, state, generator=generator())
    assert not state.e.requires_grad
    assert not state.x.requires_grad
    moved = AnnealedLayers(rbm).move(state.x.detach(), generator=generator())
    assert not moved.requires_grad


def test_same_seed_same_draws():
    rbm, before = machine("mixed"), torch.get_rng_state()
    first, same, other = (draws(rbm, n_draws=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_sampler_is_a_value():
    sampler = BlockGibbs(2.0)
    for again in (
        clone(sampler),
        pickle.loads(pickle.dumps(sampler)),
        eval(repr(sampler), vars(skebm.samplers)),
    ):
        assert again is not sampler
        assert again.temperature == 2.0
        assert repr(again) == repr(sampler) == "BlockGibbs(temperature=2.0)"


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_wrong_temperatures_are_refused(wrong):
    with pytest.raises(ValueError, match="BlockGibbs needs temperature > 0"):
        BlockGibbs(wrong)


def test_other_energies_are_refused():
    energy, sampler = Quadratic().build(2), BlockGibbs()
    state = sampler.init(energy, torch.zeros(3, 2))
    with pytest.raises(TypeError, match=r"needs an RBM, but got Quadratic.*HMC\(\)"):
        sampler.step(energy, state, generator=generator())


def on_the_path(rbm, start, t):
    """Return the machine whose energy is E_t: weights t W, biases between."""
    other = machine("bits", rbm.layer.n_features, rbm.n_hidden)
    with torch.no_grad():
        other.weight.copy_(t * rbm.weight)
        other.hidden_bias.copy_(t * rbm.hidden_bias)
        other.visible_bias.copy_((1 - t) * start + t * rbm.visible_bias)
    return other


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_moves_leave_the_law_of_their_place_invariant(t, as_tensor):
    """Exact draws of E_t stay so, and one move has the transition of E_t."""
    rbm, v, n = machine("bits", 4, 3), bits(4), 200_000
    start = torch.randn(4, generator=generator(5)).double()
    place, layers = on_the_path(rbm, start, t), AnnealedLayers(rbm, start)
    rows = v[torch.multinomial(law(place, v), n, True, generator=generator())]
    given = torch.full((n, 1), t).double() if as_tensor else t
    moved = layers.move(rows, given, generator=generator(1))
    assert variation(frequencies(moved, v), law(place, v)) < 0.01
    first = v[3:4].expand(n, -1)
    here = layers.move(first, given, generator=generator(2))
    with torch.no_grad():
        there = place.gibbs(first, generator=generator(3))
    assert variation(frequencies(here, v), frequencies(there, v)) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_start_of_the_path_is_independent_columns(kind):
    rbm, n = machine(kind), 100_000
    fields = torch.randn(rbm.layer.n_statistics, generator=generator(5)).double()
    rows = table_of(rbm, 2).repeat(n // 2, 1)
    moved = AnnealedLayers(rbm, fields).move(rows, 0.0, generator=generator())
    with torch.no_grad():
        error = rbm.layer.statistics(moved).mean(0) - rbm.layer.mean(fields[None])[0]
    assert error.abs().max() < 0.02


def test_start_is_that_of_the_machine_where_none_is_given():
    rbm = machine("bits", 6, 4)
    layers = AnnealedLayers(rbm)
    assert torch.equal(layers.start, rbm.visible_bias)
    h = torch.zeros(5, 4).double()
    drawn = [layers.visible_draw(h, t, generator=generator()) for t in (0.2, 1.0)]
    assert torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_those_of_the_machine(kind):
    rbm = machine(kind)
    layers, h = AnnealedLayers(rbm), bits(5)
    with torch.no_grad():
        phi = rbm.layer.statistics(table_of(rbm, 7))
        assert_close(layers.hidden_fields(phi), rbm.hidden_fields(phi))
        assert_close(layers.visible_fields(h), rbm.visible_fields(h))


def test_half_precision_rounds_products_alone():
    """2^-8 is the rounding of bfloat16; fields come back in the type of the weights."""
    rbm = machine("bits", 40, 30).float()
    layers = AnnealedLayers(rbm, dtype=torch.bfloat16)
    v = table_of(rbm, 9).float()
    h = (torch.rand(9, 30, generator=generator()) < 0.5).float()
    for got, expected, terms in (
        (layers.hidden_fields(v), rbm.hidden_fields(v), 40),
        (layers.visible_fields(h), rbm.visible_fields(h), 30),
    ):
        assert got.dtype == torch.float32
        miss = (got - expected).abs().max()
        assert 0 < miss < 2**-8 * 4 * terms**0.5
    assert layers.move(v, 0.5, generator=generator()).dtype == torch.float32


def test_moves_leave_rows_and_weights_alone():
    rbm = machine("bits", 20, 300).float()
    v = table_of(rbm, 300).float()
    kept, weights = v.clone(), [w.clone() for w in rbm.parameters()]
    layers = AnnealedLayers(rbm, rbm.visible_bias.detach() + 1)
    start = layers.start.clone()
    for t in (0.0, 0.5, 1.0, torch.full((300, 1), 0.5)):
        first, same = (layers.move(v, t, generator=generator()) for _ in range(2))
        assert torch.equal(first, same)
        assert not first.requires_grad
    assert torch.equal(v, kept)
    assert torch.equal(layers.start, start)
    assert all(map(torch.equal, rbm.parameters(), weights))
