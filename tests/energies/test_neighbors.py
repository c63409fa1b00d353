"""The search against exact neighbours."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from skebm.energies import neighbors
from skebm.energies.neighbors import BLOCK, SPARE, nearest, search_table

K = 5
BY_BLOCKS = 4 * (K + SPARE) * BLOCK


def randn(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def search(x, rows, k, own=None):
    own = torch.full((len(x),), -1) if own is None else own
    distance, index = nearest(x, rows, search_table(rows), k, own)
    return distance.numpy(), index.numpy()


def exact(x, rows, k, own=None):
    distance = cdist(x, rows)
    if own is not None:
        distance[np.arange(len(x)), own] = np.inf
    return np.sort(distance, axis=1)[:, :k]


@pytest.mark.parametrize("d", [1, 4, 40])
@pytest.mark.parametrize(
    "m", [K + 1, BLOCK, 300, BY_BLOCKS, BY_BLOCKS + 1, BY_BLOCKS + BLOCK, 2001]
)
def test_distances_are_exact(m, d):
    rows, x = randn(m, d, seed=1), randn(40, d)
    distance, index = search(x, rows, K)
    np.testing.assert_allclose(distance, exact(x, rows, K), rtol=0, atol=1e-10)
    measured = np.linalg.norm(x.numpy()[:, None] - rows.numpy()[index], axis=2)
    np.testing.assert_allclose(distance, measured, rtol=0, atol=1e-10)
    assert all(len(set(places)) == K for places in index)


@pytest.mark.parametrize("m", [300, 2001])
def test_duplicates_are_neighbours_at_distance_zero(m):
    rows = randn(m, 3)
    rows[7:10] = rows[150]
    x = rows[[150, 8]]
    distance, index = search(x, rows, K)
    np.testing.assert_allclose(distance, exact(x, rows, K), rtol=0, atol=1e-10)
    assert (distance[:, :4] == 0).all()
    for places in index:
        assert set(places[:4]) == {7, 8, 9, 150}


@pytest.mark.parametrize("m", [7, 300, 2001])
def test_own_copy_is_left_out(m):
    rows = randn(m, 3)
    rows[3] = rows[5]
    own = torch.arange(m)
    distance, index = search(rows, rows, K, own)
    np.testing.assert_allclose(distance, exact(rows, rows, K, own), rtol=0, atol=1e-10)
    assert (index != own[:, None].numpy()).all()
    assert distance[3, 0] == distance[5, 0] == 0
    assert (np.delete(distance[:, 0], [3, 5]) > 0).all()


def test_own_is_read_row_by_row():
    rows = randn(300, 3)
    x = rows[:3]
    distance, index = search(x, rows, K, torch.tensor([0, -1, 7]))
    assert distance[0, 0] > 0
    assert (distance[1, 0], index[1, 0]) == (0, 1)
    assert (distance[2, 0], index[2, 0]) == (0, 2)
    assert 7 not in index[2]


@pytest.mark.parametrize("m", [300, 2001])
def test_ties_go_to_the_row_stored_first(m):
    rows = torch.zeros(m, 1, dtype=torch.float64)
    rows[:, 0] = torch.arange(m) % 2
    _, index = search(torch.tensor([[0.5]]).double(), rows[:4].repeat(m // 4, 1), K)
    assert (np.diff(index) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_have_the_dtype_of_the_query(dtype):
    distance, index = nearest(
        randn(2, 3).to(dtype),
        randn(9, 3).to(dtype),
        search_table(randn(9, 3).to(dtype)),
        2,
        torch.tensor([-1, -1]),
    )
    assert distance.dtype == dtype
    assert index.dtype == torch.long


def test_far_queries_never_meet_the_filler():
    rows = randn(BY_BLOCKS + 1, 3)
    x = torch.tensor([[1e15] * 3, [-1e15] * 3, [0.0, 1e8, -1e15]]).double()
    distance, index = search(x, rows, K)
    assert index.max() < len(rows)
    np.testing.assert_allclose(distance, exact(x, rows, K), rtol=1e-10)


def test_table_is_filled_up_to_whole_blocks():
    table = search_table(randn(BLOCK + 1, 3))
    assert table.shape == (4, 2 * BLOCK)
    assert table.dtype == torch.float32
    assert table.isfinite().all()
    assert search_table(randn(BLOCK, 3)).shape == (4, BLOCK)


@pytest.mark.parametrize("k", [1, 9])
@pytest.mark.parametrize("path", ["topk", "blocks"])
def test_smallest_finds_the_smallest_by_both_paths(path, k):
    m = 4 * k * BLOCK + (BLOCK if path == "blocks" else 0)
    values = torch.randn(50, m, generator=torch.Generator().manual_seed(k))
    values[1] = values[1].sort().values
    values[2] = values[2].sort(descending=True).values
    index = neighbors._smallest(values, k)
    expected = values.argsort(1)[:, :k].sort(1).values
    assert torch.equal(index, expected)
