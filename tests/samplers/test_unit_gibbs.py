"""Single-unit Gibbs steps, and bits drawn given others, against all states."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Quadratic
from skebm.samplers import AnnealedUnits, StateLaw, UnitGibbs, draw_units, run_chains
from skebm.samplers import state_law as state_law_module
from skebm.samplers.state_law import law_of
from skebm.samplers.unit_gibbs import colored, with_hidden
from tests.energies.deep_machines import machine
from tests.energies.machines import bits, frequencies, generator, law, variation


def ring(n, coupling):
    """Return a machine in which neighbours on a ring couple."""
    found = machine(n)
    i, j = found.pairs
    with torch.no_grad():
        found.couplings.copy_(coupling * ((j - i == 1) | (j - i == n - 1)))
    return found


@pytest.mark.parametrize("order", ["random", "blocks"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("n_hidden", [0, 2])
def test_chains_have_the_law_of_the_machine(order, temperature, n_hidden):
    """At temperature T the visible marginal of exp(-E(v, h) / T)."""
    energy = machine(4, n_hidden) if order == "random" or n_hidden else ring(4, 1.5)
    s, g = bits(4 + n_hidden), generator()
    with torch.no_grad():
        p = (-energy.joint(s) / temperature).softmax(0)
        p = p.view(16, -1).sum(1)
    start = torch.zeros(4000, 4).double()
    sampler = UnitGibbs(temperature, order)
    chains = run_chains(sampler, energy, start, n_warmup=20, n_draws=5, generator=g)
    rows = chains.draws.flatten(0, 1)
    assert variation(frequencies(rows, bits(4)), p) < 0.02


@pytest.mark.parametrize("order", ["random", "blocks"])
@pytest.mark.parametrize("t", [0.0, 0.4])
def test_sweeps_leave_the_law_of_the_path_invariant(order, t):
    energy, s, n = ring(4, 2.0), bits(4), 60_000
    start = torch.tensor([1.0, -1.0, 0.5, 0.0]).double()
    with torch.no_grad():
        linear = (1 - t) * (s @ start) - t * energy(s)
        p = linear.softmax(0)
        rows = s[torch.multinomial(p, n, True, generator=generator())]
        units = AnnealedUnits(energy, start, order)
        moved = units.move(rows, t, generator=generator(1))
        slope = s @ start + energy(s)
    assert variation(frequencies(moved, s), p) < 0.01
    assert (moved != rows).any(1).double().mean() > 0.3
    assert_close(units.slope(s), -slope)


def test_blocks_of_a_ring_do_not_couple():
    blocks = colored(ring(10, 1.0).matrix())
    assert sorted(torch.cat(blocks).tolist()) == list(range(10))
    assert len(blocks) == 2
    assert len(colored(ring(9, 1.0).matrix())) == 3
    assert len(colored(machine(5).matrix())) == 5


def test_fixed_entries_stay():
    units = AnnealedUnits(machine(6))
    s = torch.rand(500, 6, generator=generator()).double()
    free = torch.rand(500, 6, generator=generator(1)) < 0.5
    moved = units.move(s, generator=generator(2), free=free)
    assert torch.equal(moved[~free], s[~free])
    assert set(moved[free].tolist()) == {0.0, 1.0}


def test_hidden_bits_are_drawn_from_their_conditional():
    energy, n = machine(3, 2), 40_000
    v = bits(3)[5].expand(n, -1)
    with torch.no_grad():
        s = with_hidden(energy, v, generator=generator())
        p = (-energy.joint(torch.cat([v[:4], bits(2)], 1))).softmax(0)
    assert torch.equal(s[:, :3], v)
    assert variation(frequencies(s[:, 3:], bits(2)), p) < 0.01


@pytest.mark.parametrize("n", [1, 2, 7])
def test_table_of_states_is_the_law(n):
    energy, s = machine(n), bits(n)
    table, p = law_of(energy), law(energy, s)
    assert float(table.log_partition) == pytest.approx(
        float((-energy(s)).logsumexp(0).detach()), abs=1e-9
    )
    mean, second = table.moments()
    assert_close(mean, p @ s)
    assert_close(second, s.T @ (p[:, None] * s))
    drawn = table.sample(50_000, generator=generator())
    assert variation(frequencies(drawn, s), p) < 0.03


def conditional(energy, observed):
    """Return the states that agree with a row, and their probabilities."""
    s = bits(energy.n_units)
    known = torch.cat([observed, observed.new_full((energy.n_hidden,), torch.nan)])
    fits = ((s == known) | known.isnan()).all(1)
    with torch.no_grad():
        return s[fits], (-energy.joint(s[fits])).softmax(0)


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("n_hidden", [0, 2])
def test_missing_entries_have_their_conditional_law(monkeypatch, is_exact, n_hidden):
    if not is_exact:
        monkeypatch.setattr(state_law_module, "MOST_UNITS", 0)
        monkeypatch.setattr(state_law_module, "N_STEPS", 20)
        monkeypatch.setattr(state_law_module, "N_TEMPERATURES", 20)
    energy, nan = machine(5, n_hidden), torch.nan
    observed = torch.tensor([1.0, nan, nan, 0.0, nan]).double()
    s, p = conditional(energy, observed)
    drawn = draw_units(energy, observed.expand(20_000, -1), generator=generator())
    assert variation(frequencies(drawn, s), p) < 0.03


def test_wrong_values_are_refused():
    with pytest.raises(TypeError, match=r"needs a Boltzmann, but got Quadratic.*HMC"):
        run_chains(
            UnitGibbs(),
            Quadratic().build(2),
            torch.zeros(4, 2),
            n_draws=4,
            generator=generator(),
        )
    with pytest.raises(ValueError, match="order='sorted'"):
        UnitGibbs(order="sorted")
    with pytest.raises(ValueError, match="temperature > 0"):
        UnitGibbs(temperature=0.0)


def test_law_of_no_couplings_is_independent_bits():
    table = StateLaw(torch.zeros(3, 3), torch.tensor([0.0, 1.0, -2.0]))
    assert_close(table.moments()[0], torch.tensor([0.0, 1.0, -2.0]).double().sigmoid())
