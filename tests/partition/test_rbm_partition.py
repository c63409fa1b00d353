"""log Z of RBMs: sums over a layer and annealing, against sums over everything."""

import copy
import math

import pytest
import torch
from sklearn.base import clone

from skebm.energies import RBM, Quadratic
from skebm.exceptions import PartitionWarning
from skebm.partition import AnnealedGibbs, LayerSum
from skebm.partition import rbm as room
from skebm.samplers import BlockGibbs, run_chains
from tests.energies.machines import (
    WIDTHS,
    bits,
    generator,
    law,
    listed,
    machine,
    randomized,
    table_of,
)

KINDS = sorted(WIDTHS)


def log_z_of_pairs(rbm, v, cell):
    """Return log sum_(v, h) exp(-E(v, h)) over listed rows and all hidden bits."""
    h = bits(rbm.n_hidden)
    with torch.no_grad():
        e = rbm.joint(v.repeat_interleave(len(h), 0), h.repeat(len(v), 1))
    return float((-e).logsumexp(0)) + cell


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_hidden", [2, 3, 6])
def test_sum_over_the_smaller_layer_is_the_sum_over_everything(kind, n_hidden):
    """4 bits and codes of 24 values: both layers are the smaller one."""
    rbm = machine(kind, n_hidden=n_hidden)
    estimate = LayerSum()(rbm)
    expected = log_z_of_pairs(rbm, *listed(kind))
    assert estimate.value == pytest.approx(expected, abs=1e-9)
    assert estimate.interval == (estimate.value, estimate.value)
    assert estimate.ess == math.inf
    assert estimate.method == "LayerSum(most_bits=30)"


def test_sum_over_two_real_columns():
    rbm = machine("gaussian", 2, 3, scale=0.7)
    line = listed("gaussian")[0][:, 0]
    expected = log_z_of_pairs(
        rbm, torch.cartesian_prod(line, line), 2 * listed("gaussian")[1]
    )
    assert LayerSum()(rbm).value == pytest.approx(expected, abs=1e-9)


def transposed(rbm):
    """Return the machine with its layers of bits exchanged: it has the same Z."""
    other = RBM(rbm.layer.n_features).build(rbm.n_hidden).double()
    with torch.no_grad():
        other.weight.copy_(rbm.weight.T)
        other.visible_bias.copy_(rbm.hidden_bias)
        other.hidden_bias.copy_(rbm.visible_bias)
    return other


@pytest.mark.parametrize(("d", "n_hidden"), [(5, 9), (9, 5), (40, 6), (6, 40)])
def test_either_layer_may_be_summed_over(d, n_hidden):
    rbm = machine("bits", d, n_hidden)
    value = LayerSum()(rbm).value
    assert value == pytest.approx(LayerSum()(transposed(rbm)).value, abs=1e-9)


@pytest.mark.parametrize("rows", [1, 7, 24, 1000])
def test_states_are_summed_in_chunks(rows, monkeypatch):
    rbm = machine("codes", n_hidden=6)
    expected = log_z_of_pairs(rbm, *listed("codes"))
    monkeypatch.setattr(room, "CHUNK_ROWS", rows)
    assert LayerSum()(rbm).value == pytest.approx(expected, abs=1e-9)


def test_sum_is_in_double_precision_and_leaves_the_machine_alone():
    rbm = machine("bits", 300, 8).float()
    weights = [w.clone() for w in rbm.parameters()]
    expected = LayerSum()(copy.deepcopy(rbm).double()).value
    assert LayerSum()(rbm).value == expected
    assert rbm.weight.dtype == torch.float32
    assert all(map(torch.equal, rbm.parameters(), weights))
    assert all(w.requires_grad for w in rbm.parameters())


def test_layers_too_large_to_sum_over_are_refused():
    assert LayerSum(most_bits=6)(machine("bits", 40, 6)).value > 0
    with pytest.raises(ValueError, match=r"has 7 bits, but .* at most 6"):
        LayerSum(most_bits=6)(machine("bits", 40, 7))
    with pytest.raises(ValueError, match=r"Use AnnealedGibbs\(\)"):
        LayerSum()(machine("gaussian", 2, 31))


@pytest.mark.parametrize("method", [LayerSum(), AnnealedGibbs()])
def test_other_energies_are_refused(method):
    with pytest.raises(TypeError, match="Got Quadratic, but expected an RBM"):
        method(Quadratic().build(2), generator=generator())


def assert_covers(estimate, truth, width=0.1):
    low, high = estimate.interval
    assert low <= truth <= high
    assert estimate.value == pytest.approx(truth, abs=width)
    assert high - low < 4 * width


@pytest.mark.parametrize("seed", range(3))
def test_annealing_finds_log_z_of_strong_weights(seed):
    rbm = machine("bits", 20, 10, seed=seed).float()
    estimate = AnnealedGibbs()(rbm, generator=generator(seed))
    assert_covers(estimate, LayerSum()(rbm).value)
    assert estimate.method == repr(AnnealedGibbs())
    assert estimate.ess > 100


@pytest.mark.parametrize("kind", ["codes", "gaussian", "mixed"])
def test_annealing_finds_log_z_of_all_units(kind):
    rbm = machine(kind, 12, 8, scale=0.6)
    method = AnnealedGibbs(n_temperatures=500)
    assert_covers(method(rbm, generator=generator()), LayerSum()(rbm).value)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_carry_a_graph_are_not_read(kind):
    """torch warns of them once in a process, unless told to warn always."""
    torch.set_warn_always(True)
    try:
        AnnealedGibbs(32, 5)(machine(kind), generator=generator())
        LayerSum()(machine(kind))
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize("start", ["rows", "base", "own"])
def test_every_start_leads_to_log_z(start):
    """From base rates of rows, from another machine's biases, from the own ones."""
    rbm = machine("bits", 20, 10, seed=1)
    chains = run_chains(
        BlockGibbs(), rbm, table_of(rbm, 500), n_draws=1, generator=generator()
    )
    given = {
        "rows": {"x": chains.draws[0].float()},
        "base": {"base": randomized(RBM(1).build(20), 0.5, seed=9)},
        "own": {},
    }[start]
    method = AnnealedGibbs(n_temperatures=500)
    assert_covers(method(rbm, generator=generator(), **given), LayerSum()(rbm).value)


def test_rows_may_have_missing_entries():
    rbm = machine("bits", 8, 4)
    x = table_of(rbm, 200)
    x[::3, 2] = math.nan
    estimate = AnnealedGibbs(64, n_temperatures=100)(rbm, generator=generator(), x=x)
    assert estimate.value == pytest.approx(LayerSum()(rbm).value, abs=0.1)


@pytest.mark.parametrize("n_temperatures", [1, 5])
@pytest.mark.parametrize("kind", ["bits", "mixed"])
def test_weights_are_unbiased_and_their_logs_bracket_log_z(kind, n_temperatures):
    """E[w] = Z ahead and E[1 / w] = 1 / Z back; by Jensen, logs are low and high."""
    rbm = machine(kind, n_hidden=3)
    truth, (v, _) = LayerSum()(rbm).value, listed(kind)
    exact = v[torch.multinomial(law(rbm, v), 5000, True, generator=generator())]
    method = AnnealedGibbs(16_000, n_temperatures=n_temperatures)
    ahead, behind = (
        w.flatten() - truth
        for w in method.both_ways(rbm, generator=generator(), x=exact)
    )
    for low in (ahead, -behind):
        assert low.mean() < -5 * low.std() / 16_000**0.5
    assert ahead.exp().mean().item() == pytest.approx(1.0, abs=0.05)
    assert (-behind).exp().mean().item() == pytest.approx(1.0, abs=0.05)


def test_intervals_cover_as_often_as_they_say():
    rbm = machine("bits", 8, 6)
    truth, method, n_hits = LayerSum()(rbm).value, AnnealedGibbs(64, 50), 0
    for seed in range(40):
        low, high = method(rbm, generator=generator(seed)).interval
        n_hits += low <= truth <= high
    assert n_hits >= 34  # P < 0.01 at 95%


def test_forward_estimate_is_that_of_the_same_chains():
    rbm, truth = machine("bits", 10, 5), LayerSum()(machine("bits", 10, 5)).value
    method = AnnealedGibbs(256, n_temperatures=200, bracket=False)
    ahead, behind = method.both_ways(rbm, generator=generator())
    assert behind is None
    assert ahead.shape == (16, 16)
    estimate = method(rbm, generator=generator())
    mean = float(ahead.logsumexp((0, 1))) - math.log(256)
    assert estimate.value == pytest.approx(mean, abs=1e-9)
    assert_covers(estimate, truth, 0.2)


def test_chains_are_rounded_down_to_whole_islands():
    ahead, behind = AnnealedGibbs(47, 5).both_ways(machine(), generator=generator())
    assert ahead.shape == behind.shape == (16, 2)


def test_modes_that_chains_miss_are_reported():
    """Two far modes, the base in one and the rows in the other."""
    rbm = machine("bits", 10, 1)
    with torch.no_grad():
        rbm.weight.fill_(8.0)
        rbm.visible_bias.fill_(-4.0)
        rbm.hidden_bias.fill_(-36.0)
    method, x = AnnealedGibbs(64, 20), torch.ones(50, 10).double()
    with pytest.warns(PartitionWarning, match="disagree"):
        estimate = method(rbm, base=rbm, generator=generator(), x=x)
    low, high = estimate.interval
    assert low <= LayerSum()(rbm).value <= high


def test_same_generator_same_estimate_and_the_machine_stays():
    rbm, method = machine("mixed").float(), AnnealedGibbs(32, 10)
    weights, before = [w.clone() for w in rbm.parameters()], torch.get_rng_state()
    first, same, other = (
        method(rbm, generator=generator(seed)).value for seed in (0, 0, 1)
    )
    assert first == same != other
    assert all(map(torch.equal, rbm.parameters(), weights))
    assert all(w.requires_grad and w.grad is None for w in rbm.parameters())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", [LayerSum(12), AnnealedGibbs(64, 50, False)])
def test_values_clone_and_print(method):
    again = clone(method)
    assert again.get_params() == method.get_params()
    assert repr(again) == repr(method)


@pytest.mark.parametrize("wrong", [{"n_chains": 31}, {"n_temperatures": 0}])
def test_too_few_chains_or_places_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"Got {name}={value} in AnnealedGibbs"):
        AnnealedGibbs(**wrong)(machine(), generator=generator())
