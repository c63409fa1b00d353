"""Distance in local units against the formula, one row at a time."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from skebm._torch import chunk_rows, in_chunks
from skebm.energies import LocalMemory, local
from skebm.energies.local import RIDGE, TINY, plane_distance


def randn(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def lower_median(values):
    return np.sort(values)[(len(values) - 1) // 2]


def plane(x, around):
    """Ridge algebra in the columns: |l (C'C + l I)^-1 (x - m)|."""
    centered = around - around.mean(0)
    ridge = RIDGE * (centered**2).sum() / len(around) + TINY
    gram = centered.T @ centered + ridge * np.eye(len(x))
    return np.linalg.norm(ridge * np.linalg.solve(gram, x - around.mean(0)))


def measure(x, rows, own, k, t):
    """(k nearest distances, their places, distance to the plane) of one row."""
    distance = cdist(x[None], rows)[0]
    if own is not None:
        distance[own] = np.inf
    order = np.argsort(distance, kind="stable")
    return distance[order[:k]], order[:k], plane(x, rows[order[:t]])


def reference(energy, x, rows, own=None):
    """E of one row; own is its place among the rows, None for a new one."""
    m = len(rows)
    k, t = min(energy.n_neighbors, m - 1), min(energy.n_tangent, m - 1)
    stored = [measure(row, rows, i, k, t) for i, row in enumerate(rows)]
    near = 0.05 * lower_median([d.mean() for d, _, _ in stored]) + TINY
    off = 0.05 * lower_median([r for _, _, r in stored]) + TINY
    distance, index, residual = measure(x, rows, own, k, t)
    around = rows if own is not None else np.vstack([rows, x])
    scales = []
    for j in index:
        others = np.delete(around, j, axis=0)
        scales.append(np.sort(cdist(rows[j][None], others)[0])[:k].mean())
    e = np.log(distance.mean() + near)
    e -= energy.rescaling * np.mean(np.log(np.array(scales) + near))
    return e + energy.tangent_weight * np.log(residual + off)


SETTINGS = [
    {},
    {"rescaling": 0.0, "n_tangent": 6},
    {"n_neighbors": 1, "rescaling": 1.0, "n_tangent": 2, "tangent_weight": 1.0},
    {"n_neighbors": 8, "n_tangent": 3},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("m", "d"), [(60, 3), (24, 30), (4, 2)])
def test_energy_equals_the_formula(m, d, settings):
    rows, new = randn(m, d), 1.5 * randn(12, d, seed=1)
    energy = LocalMemory(**settings).store(rows)
    table = rows.numpy()
    stored = [reference(energy, row, table, own=i) for i, row in enumerate(table)]
    np.testing.assert_allclose(energy.stored_energy, stored, rtol=1e-8, atol=1e-8)
    expected = [reference(energy, x, table) for x in new.numpy()]
    np.testing.assert_allclose(energy(new), expected, rtol=1e-8, atol=1e-8)


def test_plain_energy_is_the_log_of_the_mean_distance():
    rows, new = randn(60, 3), randn(12, 3, seed=1)
    energy = LocalMemory(rescaling=0.0, tangent_weight=0.0).store(rows)
    leave_one_out = np.sort(cdist(rows, rows), axis=1)[:, 1:6].mean(1)
    offset = 0.05 * lower_median(leave_one_out) + TINY
    np.testing.assert_allclose(
        energy.stored_energy, np.log(leave_one_out + offset), rtol=1e-9
    )
    distance = np.sort(cdist(new, rows), axis=1)[:, :5].mean(1)
    np.testing.assert_allclose(energy(new), np.log(distance + offset), rtol=1e-9)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("duplicated", [False, True])
def test_stored_and_new_rows_meet_the_same_function(settings, duplicated):
    rows = randn(60, 3)
    if duplicated:
        rows[30:35] = rows[2]
    full = LocalMemory(**settings).store(rows)
    for i in (0, 2, 17, 59):
        rest = LocalMemory(**settings).store(torch.cat([rows[:i], rows[i + 1 :]]))
        rest.offset = full.offset
        as_new = rest(rows[i : i + 1])
        as_own = full(rows[i : i + 1], torch.tensor([i]))
        assert_close(as_new, as_own, rtol=1e-9, atol=1e-9)
        assert_close(as_own[0], full.stored_energy[i], rtol=1e-12, atol=1e-12)


def test_stored_energy_equals_scoring_in_chunks_bit_by_bit():
    rows = randn(300, 3)
    energy = LocalMemory().store(rows)
    own = torch.arange(300)
    (again,) = in_chunks(lambda x, i: (energy(x, i),), chunk_rows(300, 3), rows, own)
    assert torch.equal(again, energy.stored_energy)


def test_given_copies_are_left_out():
    x = randn(40, 2)
    twice = torch.cat([x, x])
    other = torch.arange(80).roll(40)
    energy = LocalMemory().store(twice, own=other)
    expected = energy(twice, other)
    assert_close(energy.stored_energy, expected, rtol=1e-12, atol=1e-12)
    assert (energy.distance[:, 0] == 0).all()


def test_stored_rows_may_be_seen_from_other_places():
    rows, seen = randn(60, 3), 1.1 * randn(60, 3)
    energy = LocalMemory().store(rows, seen)
    own = torch.arange(60)
    assert_close(energy.stored_energy, energy(seen, own), rtol=1e-12, atol=1e-12)
    distance = cdist(seen, rows)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(energy.distance, np.sort(distance, axis=1)[:, :5])


def test_rows_next_to_a_tight_cluster_are_stranger_than_next_to_a_loose_one():
    tight = 0.01 * randn(50, 2)
    loose = torch.tensor([9.0, 0.0]) + randn(50, 2, seed=1)
    energy = LocalMemory(tangent_weight=0.0).store(torch.cat([tight, loose]))
    step = torch.tensor([0.0, 4.0]).double()
    near_tight, near_loose = energy(torch.stack([step, loose.mean(0) + step]))
    assert near_tight > near_loose


def test_a_row_off_the_surface_is_stranger_than_one_that_slid_along_it():
    angle = torch.linspace(0, 6.2, 400, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    kept = circle[(angle - 3).abs() > 0.15]
    along = circle[(angle - 3).abs().argmin()]
    off = kept[40] * 1.15
    with_plane = LocalMemory().store(kept)(torch.stack([along, off]))
    assert with_plane[1] > with_plane[0]
    without = LocalMemory(tangent_weight=0.0).store(kept)(torch.stack([along, off]))
    assert (with_plane - without)[1] > (with_plane - without)[0]


@pytest.mark.parametrize("m", [2, 3, 6, 25])
def test_few_rows_and_coinciding_rows_stay_finite(m):
    for rows in (randn(m, 2), torch.zeros(m, 2, dtype=torch.float64)):
        energy = LocalMemory().store(rows)
        assert energy.stored_energy.isfinite().all()
        assert energy(torch.cat([rows, randn(3, 2)])).isfinite().all()


def test_energy_is_unchanged_by_rotation_and_shifted_by_scale():
    rows, new = randn(60, 3), randn(9, 3, seed=1)
    turn = torch.linalg.qr(randn(3, 3, seed=2)).Q
    base = LocalMemory().store(rows)(new)
    turned = LocalMemory().store(rows @ turn)(new @ turn)
    assert_close(turned, base, rtol=1e-8, atol=1e-8)
    scaled = LocalMemory().store(10 * rows)(10 * new)
    shift = (1 - 0.25 + 0.5) * torch.full_like(base, 10.0).log()
    assert_close(scaled, base + shift, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("t", "d"), [(4, 2), (6, 3), (3, 8), (20, 8)])
def test_plane_distance_equals_ridge_algebra(t, d):
    x, around = randn(9, d), randn(9 * t, d, seed=1).view(9, t, d)
    expected = [plane(a, b) for a, b in zip(x.numpy(), around.numpy(), strict=True)]
    np.testing.assert_allclose(plane_distance(x, around), expected, rtol=1e-9)


def test_plane_distance_without_ridge_is_the_distance_to_the_plane(monkeypatch):
    monkeypatch.setattr(local, "RIDGE", 1e-10)
    flat = randn(9 * 12, 3).view(9, 12, 3)
    flat[:, :, 2] = 2.0
    x = randn(9, 3, seed=1)
    x[:, 2] = 2.0
    assert plane_distance(x, flat).max() < 1e-8
    height = torch.linspace(0.5, 3.0, 9, dtype=torch.float64)
    x[:, 2] += height
    assert_close(plane_distance(x, flat), height, rtol=1e-8, atol=0)


def test_a_row_at_the_mean_of_its_neighbours_has_no_plane_distance():
    around = randn(24, 3).view(2, 12, 3)
    assert plane_distance(around.mean(1), around).max() < 1e-12
