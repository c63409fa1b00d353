"""log Z of Boltzmann machines, plain and deep, against sums over all states."""

import pytest
import torch

from skebm.energies import RBM
from skebm.partition import AnnealedGibbs, AnnealedUnitGibbs, Enumeration, StateSum
from skebm.partition.pseudo import pseudo_log_likelihood_of_bits
from tests.energies.deep_machines import deep, layered_energies, machine
from tests.energies.machines import bits, generator


@pytest.mark.parametrize("n_hidden", [0, 3])
def test_sum_of_ten_units_is_the_enumeration(n_hidden):
    energy = machine(10 - n_hidden, n_hidden)
    found = StateSum()(energy)
    with torch.no_grad():
        expected = float((-energy.joint(bits(10))).logsumexp(0))
    assert found.value == pytest.approx(expected, abs=1e-6)
    visible = Enumeration()(energy, n_features=10 - n_hidden).value
    assert found.value == pytest.approx(visible, abs=1e-6)
    assert found.interval == (found.value, found.value)


def test_large_sums_and_other_energies_are_refused():
    with pytest.raises(ValueError, match=r"25 units.*at most 24.*AnnealedUnitGibbs"):
        StateSum()(machine(25))
    for normalizer in (StateSum(), AnnealedUnitGibbs()):
        with pytest.raises(TypeError, match="Got RBM, but expected a Boltzmann"):
            normalizer(RBM(2).build(3), generator=generator())


@pytest.mark.parametrize("n_hidden", [0, 3])
@pytest.mark.parametrize("from_rows", [False, True])
def test_annealing_is_within_a_tenth_of_a_nat(n_hidden, from_rows):
    energy = machine(10, n_hidden, scale=1.5)
    energy.start[:10] = energy.bias[:10].detach()
    exact = StateSum()(energy).value
    rows = bits(10)[::7] if from_rows else None
    annealing = AnnealedUnitGibbs(256, n_temperatures=100)
    found = annealing(energy, generator=generator(), x=rows)
    low, high = found.interval
    assert found.value == pytest.approx(exact, abs=0.1)
    assert high - low < 0.4
    assert abs(found.value - exact) < high - low


def test_both_ways_err_to_their_sides():
    """log mean w is low and -log mean 1/w high: seen where few steps are taken."""
    energy = machine(10, scale=2.0)
    exact, annealing = StateSum()(energy).value, AnnealedUnitGibbs(64, n_temperatures=2)
    ahead, behind = annealing.both_ways(energy, generator=generator())
    assert ahead.mean() < exact - 0.5
    assert behind.mean() > exact + 0.5
    ahead, behind = AnnealedUnitGibbs(64, 2, bracket=False).both_ways(
        energy, generator=generator()
    )
    assert behind is None


@pytest.mark.parametrize("sizes", [(6, 5, 4), (4, 3, 2, 3)])
def test_annealing_of_a_deep_machine_is_within_a_tenth_of_a_nat(sizes):
    dbm = deep(*sizes)
    with torch.no_grad():
        exact = float((-layered_energies(dbm, bits(sum(sizes)))).logsumexp(0))
    found = AnnealedGibbs(256, n_temperatures=200)(dbm.folded(), generator=generator())
    assert found.value == pytest.approx(exact, abs=0.1)
    assert abs(found.value - exact) < found.interval[1] - found.interval[0]


def test_pseudo_log_likelihood_sums_conditionals():
    """log p(v_i | others) from the energies of the row and of its flip."""
    energy, v = machine(6), bits(6)
    expected = torch.zeros(len(v)).double()
    with torch.no_grad():
        for i in range(6):
            flipped = v.clone()
            flipped[:, i] = 1 - v[:, i]
            expected -= torch.log1p((energy(v) - energy(flipped)).exp())
        found = pseudo_log_likelihood_of_bits(energy, v)
    torch.testing.assert_close(found, expected)
