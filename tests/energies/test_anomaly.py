"""The default energy: its scales, its parts and its samples."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from skebm._torch import in_chunks
from skebm.energies import AnomalyEnergy, LocalMemory, MemoryBag
from skebm.energies.views import Ranked, Standardized, Whitened


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(n, d, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def stored(x, clean=True, seed=0):
    return AnomalyEnergy(clean).store(x, generator=generator(seed))


def table(n=300):
    return randn(n, 4) @ randn(4, 4, seed=1) + torch.tensor([0.0, 5.0, -9.0, 1e3])


def pixels():
    return torch.from_numpy(load_digits().data[:300])


def scaled(values):
    """(values - lower median) / interquartile range."""
    n, ordered = len(values), values.sort().values
    iqr = ordered[round(0.75 * (n - 1))] - ordered[round(0.25 * (n - 1))]
    return (values - values.median()) / iqr


def looks(x, clean, pooled):
    """The views of rows as new ones and as stored ones; the bag sees the last."""
    z = Standardized().fit(x)(x)
    new, seen = torch.zeros(len(x), dtype=torch.bool), torch.ones(len(x)).bool()
    whitened = Whitened(0.25 if pooled else -0.25, shrinks=clean).fit(z)
    ranked = Ranked().fit(z)
    for own in (new, seen):
        within, beyond = ranked(z, own)
        ranks = within + beyond if clean else 0.5 * (z + within)
        yield [whitened(z, own)] if pooled else [whitened(z, own), ranks]


def terms(x, clean, pooled=False):
    """The scaled local sum and the scaled bag of the stored rows, from the parts."""
    pairs = list(zip(*looks(x, clean, pooled), strict=True))
    plain = {} if clean else {"rescaling": 0.0, "tangent_weight": 0.0}
    each = [LocalMemory(**plain).store(*pair).stored_energy for pair in pairs]
    bag = MemoryBag().store(*pairs[-1], generator=generator()).stored_energy
    return scaled(torch.stack([scaled(e) for e in each]).sum(0)), scaled(bag.double())


@pytest.mark.parametrize("make", [table, pixels])
def test_clean_energies_have_median_zero_and_interquartile_range_one(make):
    e = stored(make()).stored_energy
    assert e.dtype == torch.float64
    ordered = e.sort().values
    assert float(e.median()) == pytest.approx(0, abs=1e-12)
    assert float(ordered[round(0.75 * 299)] - ordered[round(0.25 * 299)]) == (
        pytest.approx(1, abs=1e-12)
    )


def test_clean_energy_is_the_scaled_sum_of_the_scaled_views():
    x = table()
    local, _ = terms(x, clean=True)
    assert_close(stored(x).stored_energy, local, rtol=1e-6, atol=1e-6)


def test_mixed_energy_is_the_larger_of_its_two_terms():
    x = table()
    local, bag = terms(x, clean=False)
    e = stored(x, clean=False).stored_energy
    assert_close(e, torch.maximum(local, bag), rtol=1e-4, atol=1e-4)
    assert 30 < (local > bag).sum() < 270


def test_pixels_have_one_local_view():
    x = pixels()
    energy = stored(x, clean=False)
    assert len(energy.memories) == 1
    assert energy.standardized.pooled
    local, bag = terms(x, clean=False, pooled=True)
    expected = torch.maximum(local, bag)
    assert_close(energy.stored_energy, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [table, pixels])
def test_stored_energy_equals_scoring_the_stored_rows_bit_by_bit(make, dtype, clean):
    x = make().to(dtype)
    energy = stored(x, clean)
    own = torch.arange(len(x))
    score = lambda rows, i: (energy(rows, i),)  # noqa: E731
    assert torch.equal(in_chunks(score, energy.chunk, x, own)[0], energy.stored_energy)
    order = torch.randperm(len(x), generator=generator())
    shuffled = in_chunks(score, energy.chunk, x[order], own[order])[0]
    assert torch.equal(shuffled, energy.stored_energy[order])
    alone = in_chunks(score, energy.chunk, x[7:8], own[7:8])[0]
    assert torch.equal(alone, energy.stored_energy[7:8])


@pytest.mark.parametrize("clean", [True, False])
def test_a_stored_row_without_its_own_copy_is_stranger(clean):
    x = table()
    energy = stored(x, clean)
    gain = energy.stored_energy - energy(x)
    assert (gain > 0.01).double().mean() > 0.7
    assert gain.median() > 0.1


@pytest.mark.parametrize("clean", [True, False])
def test_given_copies_are_left_out(clean):
    x, own = table(80), torch.arange(80).flip(0)
    energy = AnomalyEnergy(clean).store(x, own=own, generator=generator())
    assert_close(energy(x, own), energy.stored_energy, rtol=1e-5, atol=1e-5)
    assert not torch.equal(energy.stored_energy, stored(x, clean).stored_energy)


@pytest.mark.parametrize("clean", [True, False])
def test_units_and_order_of_the_columns_do_not_matter(clean):
    x, new = table(), 2 * table()[:20] + 1
    unit = torch.tensor([1e-3, 1.0, 4.0, 1e5]).double()
    order = [2, 0, 3, 1]
    expected = stored(x, clean)(new)
    other = stored((x * unit - 7)[:, order], clean)((new * unit - 7)[:, order])
    assert_close(other, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("clean", [True, False])
def test_energy_grows_with_the_distance_from_the_table(clean):
    x = table()
    energy = stored(x, clean)
    direction = randn(1, 4, seed=3)
    steps = torch.logspace(1, 4, 20, dtype=torch.float64)[:, None]
    e = energy(x.mean(0) + steps * direction * x.std(0))
    assert (e.diff() > 0).all()
    assert e[0] > energy.stored_energy.quantile(0.99)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("far", [1e6, 1e12])
def test_one_far_row_does_not_hide_the_others(far, clean):
    x = randn(500, 3)
    x[0] = far
    energy = stored(x, clean)
    e = energy(randn(500, 3, seed=1))
    alarms = (e > energy.stored_energy.quantile(0.95)).double().mean()
    assert 0.01 < alarms < 0.15
    odd = energy(torch.tensor([[5.0, 5.0, 5.0], [4.0, -4.0, 4.0]]).double())
    assert odd.min() > e.quantile(0.9)


def test_mixed_energy_finds_isolated_rows_and_clumps():
    inlying = randn(500, 4)
    clump = 5 + 0.02 * randn(12, 4, seed=1)
    lone = torch.tensor([[-7.0, 7.0, 7.0, -7.0]]).double()
    e = stored(torch.cat([inlying, clump, lone]), clean=False).stored_energy
    assert e[500:].min() > e[:500].quantile(0.99)


def test_stages_are_named_and_counted():
    x = table(40)
    energy = AnomalyEnergy()
    names = list(energy.stages(x, torch.arange(40), generator=generator()))
    assert len(names) == energy.n_stages
    assert names == ["views", "neighbours", "scales", "levels"]
    assert torch.equal(energy.stored_energy, stored(x).stored_energy)


@pytest.mark.parametrize("make", [table, pixels])
def test_storing_again_forgets_the_first_table(make):
    energy = stored(pixels() if make is table else table(), clean=False)
    energy.store(make(), generator=generator())
    expected = stored(make(), clean=False)
    assert torch.equal(energy.stored_energy, expected.stored_energy)
    assert torch.equal(energy(make()[:9]), expected(make()[:9]))


def test_only_the_bag_depends_on_the_seed():
    x = table()
    assert torch.equal(stored(x, seed=0).stored_energy, stored(x, seed=1).stored_energy)
    first, same, other = (stored(x, False, seed).stored_energy for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_samples_stay_near_the_typical_rows():
    x = torch.cat([table(), table(3) + 15])
    energy = stored(x, clean=False)
    threshold = float(energy.stored_energy[:300].quantile(0.9))
    drawn = energy.sample(500, threshold, generator())
    assert drawn.shape == (500, 4)
    assert drawn.dtype == torch.float64
    typical = x[energy.stored_energy <= threshold]
    sd, expected = drawn.std(0), typical.std(0)
    assert ((drawn.mean(0) - typical.mean(0)).abs() < 0.2 * expected).all()
    assert ((sd > 0.8 * expected) & (sd < 1.35 * expected)).all()
    nearest = torch.cdist(drawn / expected, typical / expected).amin(1)
    gaps = torch.cdist(typical / expected, typical / expected)
    gap = gaps.fill_diagonal_(torch.inf).amin(1).median()
    assert nearest.median() < 2 * gap
    assert nearest.min() > 0


def test_a_wrong_cell_does_not_blur_the_samples():
    x = randn(300, 3)
    x[0, 0] = 1e6
    energy = stored(x)
    threshold = float(energy.stored_energy[1:].max())
    assert energy.stored_energy[0] > threshold
    drawn = energy.sample(500, threshold, generator())
    assert (drawn.std(0) < 1.5 * x[1:].std(0)).all()


def test_samples_of_a_clean_energy_look_typical_to_it():
    energy = stored(table())
    drawn = energy.sample(300, float(energy.stored_energy.max()), generator())
    e = energy(drawn)
    assert e.median() < 1.5
    assert (e < energy.stored_energy.max()).double().mean() > 0.9


def test_sampled_constant_columns_stay_constant():
    x = table()
    x[:, 2] = 3.7
    drawn = stored(x).sample(50, 9.0, generator())
    assert (drawn[:, 2] == 3.7).all()
    assert (drawn[:, [0, 1, 3]].std(0) > 0).all()


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("m", [2, 3, 7])
def test_few_rows_are_enough(m, clean):
    energy = stored(table(m), clean)
    assert energy.stored_energy.isfinite().all()
    assert energy(table(9)).isfinite().all()
    assert (
        energy.sample(2, float(energy.stored_energy.max()), generator())
        .isfinite()
        .all()
    )


@pytest.mark.parametrize("clean", [True, False])
def test_extreme_tables_stay_finite(clean):
    same = torch.full((30, 3), 4.2, dtype=torch.float64)
    spike = randn(60, 3)
    spike[0] = 1e300
    wide = randn(8, 50)
    steps = torch.randint(0, 2, (60, 3), generator=generator()).double()
    for x in (same, spike, wide, steps):
        energy = stored(x, clean)
        assert energy.stored_energy.isfinite().all()
        far = torch.full((1, x.shape[1]), -1e300, dtype=torch.float64)
        e = energy(torch.cat([x[1:4], far]))
        assert e.isfinite().all()
        assert e[3] > e[:3].max()
