"""Small memories against the formula for their members."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from skebm.energies import MemoryBag
from skebm.energies.bag import FARTHEST, NARROWEST


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(n, d, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def stored(x, seed=0, own=None, **settings):
    return MemoryBag(**settings).store(x, own=own, generator=generator(seed))


def members(energy):
    return energy.place.numpy().reshape(energy.n_members, -1)


def reference(energy, x, rows, own=None):
    """E of rows for the members and bandwidths that the energy drew."""
    squared = cdist(x, rows, "sqeuclidean")
    if own is not None:
        squared[np.arange(len(x)), own] = np.inf
    each = [
        -logsumexp(-squared[:, member] / (2 * h), axis=1)
        for member, h in zip(members(energy), energy.bandwidth.numpy(), strict=True)
    ]
    return np.mean(each, axis=0)


@pytest.mark.parametrize(("n_members", "member_size"), [(1, 2), (3, 16), (5, 500)])
def test_energy_equals_the_formula(n_members, member_size):
    rows, new = randn(200, 3), 2 * randn(20, 3, seed=1)
    energy = stored(rows, n_members=n_members, member_size=member_size)
    size = min(member_size, 160)
    assert members(energy).shape == (n_members, size)
    expected = reference(energy, new, rows)
    np.testing.assert_allclose(energy(new), expected, rtol=1e-4, atol=1e-3)


def test_members_hold_distinct_rows_and_the_table_their_values():
    rows = randn(200, 3)
    energy = stored(rows, n_members=3, member_size=64)
    assert all(len(set(member)) == 64 for member in members(energy))
    np.testing.assert_allclose(energy.patterns, rows[energy.place.long()], rtol=1e-6)


def test_bandwidth_is_the_median_squared_gap_inside_the_member():
    rows = randn(200, 3)
    energy = stored(rows, n_members=3, member_size=65, trim=0.0)
    for member, h in zip(members(energy), energy.bandwidth, strict=True):
        squared = cdist(rows[member], rows[member], "sqeuclidean")
        np.fill_diagonal(squared, np.inf)
        scott = 65 ** (-2 / 7) * rows.var(0, correction=0).mean()
        expected = max(np.median(squared.min(1)), float(scott))
        assert float(h) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("level", [0.0, 2.0])
def test_bandwidth_has_a_floor(level):
    rows = torch.full((40, 3), level, dtype=torch.float64)
    energy = stored(rows, n_members=2)
    floor = max(NARROWEST * 3 * level**2, 1e-12)
    np.testing.assert_allclose(energy.bandwidth, floor, rtol=1e-5)
    assert energy.stored_energy.isfinite().all()
    assert energy(rows + 1).isfinite().all()


def test_own_copies_are_left_out():
    rows = randn(100, 3)
    energy = stored(rows, n_members=3, member_size=20)
    own = np.arange(100)
    expected = reference(energy, rows, rows, own)
    np.testing.assert_allclose(energy.stored_energy, expected, rtol=1e-4, atol=1e-3)
    kept = reference(energy, rows, rows)
    inside = np.isin(own, energy.place)
    assert (kept[inside] < expected[inside] - 1e-3).all()
    np.testing.assert_allclose(kept[~inside], expected[~inside])
    mixed = torch.from_numpy(np.where(own % 2, own, -1))
    e = energy(rows, mixed).numpy()
    np.testing.assert_allclose(e[1::2], expected[1::2], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(e[::2], kept[::2], rtol=1e-4, atol=1e-3)


def test_given_copies_are_left_out():
    rows = randn(60, 2)
    own = torch.arange(60).flip(0)
    energy = stored(rows, own=own, n_members=3, member_size=20)
    expected = reference(energy, rows, rows, own.numpy())
    np.testing.assert_allclose(energy.stored_energy, expected, rtol=1e-4, atol=1e-3)


def test_stored_rows_may_be_seen_from_other_places():
    rows, seen = randn(60, 2), 1.1 * randn(60, 2)
    energy = MemoryBag(n_members=3, member_size=20, trim=0.0)
    energy.store(rows, seen, generator=generator())
    expected = reference(energy, seen, rows, np.arange(60))
    np.testing.assert_allclose(energy.stored_energy, expected, rtol=1e-4, atol=1e-3)


def test_trimming_keeps_planted_outliers_out_of_the_members():
    scattered = torch.nn.functional.normalize(randn(20, 5, seed=1), dim=1) * 15
    clump = 12 + 0.1 * randn(10, 5, seed=2)
    rows = torch.cat([randn(200, 5), scattered, clump])
    trimmed = stored(rows, member_size=32)
    assert trimmed.place.max() < 200
    assert trimmed.stored_energy[200:].min() > trimmed.stored_energy[:200].max()
    assert stored(rows, member_size=32, trim=0.0).place.max() >= 200


def test_the_share_that_is_trimmed():
    rows = randn(50, 2)
    for trim, kept in ((0.0, 50), (0.2, 40), (0.5, 25), (0.99, 2)):
        energy = stored(rows, n_members=2, trim=trim)
        assert members(energy).shape == (2, kept)


def test_the_trimmed_rows_are_the_strangest_of_the_first_bag():
    rows = torch.cat([randn(80, 2), randn(20, 2, seed=1) + 30 * randn(20, 2, seed=2)])
    energy = stored(rows, n_members=4)
    near = rows.norm(dim=1).argsort()[:60]
    assert set(near.tolist()) <= set(energy.place.tolist())


def test_a_clump_stays_strange_where_neighbours_call_it_dense():
    clump = torch.tensor([6.0, 6.0]) + 0.05 * randn(12, 2, seed=1)
    rows = torch.cat([randn(400, 2), clump])
    energy = stored(rows)
    share = (energy.stored_energy[:400] < energy.stored_energy[400:].min()).double()
    assert share.mean() > 0.97


def test_same_seed_same_bag():
    rows, x = randn(100, 3), randn(5, 3, seed=1)
    first, same = (stored(rows, 4, member_size=16) for _ in range(2))
    assert torch.equal(first.place, same.place)
    assert torch.equal(first(x), same(x))
    assert torch.equal(first.stored_energy, same.stored_energy)
    assert not torch.equal(first.place, stored(rows, 5, member_size=16).place)


def test_extreme_rows_stay_finite_and_strange():
    rows = randn(100, 3)
    energy = stored(rows, n_members=4)
    far = torch.tensor([[1e300] * 3, [-1e300] * 3, [FARTHEST] * 3]).double()
    e = energy(far)
    assert e.dtype == torch.float32
    assert e.isfinite().all()
    assert e.min() > energy.stored_energy.max()
    rows[0] = 1e300
    assert stored(rows, n_members=4).stored_energy.isfinite().all()


@pytest.mark.parametrize("m", [2, 3])
def test_two_rows_are_enough(m):
    energy = stored(randn(m, 2))
    assert energy.stored_energy.shape == (m,)
    assert energy.stored_energy.isfinite().all()
