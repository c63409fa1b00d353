"""The k nearest stored rows, found in float32 and measured in full precision."""

import torch
from torch import Tensor

SPARE = 4
"""Candidates beyond k, so that rounding in the search rarely costs a true neighbour."""

BLOCK = 32
"""Stored rows per block of the search."""


def search_table(rows: Tensor) -> Tensor:
    """Return the (d + 1, m') float32 table that `nearest` searches.

    Column j holds (-2 xi_j, |xi_j|^2); m' is m filled up to whole blocks with columns
    at a distance beyond all others.
    """
    low = rows.float()
    table = torch.cat([-2 * low, low.square().sum(1, keepdim=True)], 1)
    missing = -len(low) % BLOCK
    filler = table.new_zeros(missing, table.shape[1])
    filler[:, -1] = torch.finfo(torch.float32).max
    return torch.cat([table, filler]).T.contiguous()


def nearest(
    x: Tensor, rows: Tensor, table: Tensor, n_neighbors: int, own: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the nearest stored rows of each query, nearest first.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Queries.
    rows : Tensor of shape (m, d)
        Stored rows.
    table : Tensor of shape (d + 1, m')
        `search_table(rows)`.
    n_neighbors : int
        k, at most m - c.
    own : Tensor of shape (n,) or (n, c)
        Stored rows to leave out for each query, -1 for none.

    Returns
    -------
    distance : Tensor of shape (n, k)
        Euclidean distances, exact for the dtype of ``x``.
    index : Tensor of shape (n, k)
        Their places in ``rows``.
    """
    queries = torch.cat([x.float(), x.new_ones(len(x), 1, dtype=torch.float32)], 1)
    squared = queries @ table
    own = own.view(len(x), -1)
    seen, copy = (own >= 0).nonzero(as_tuple=True)
    squared[seen, own[seen, copy]] = torch.inf
    k = min(n_neighbors + SPARE, len(rows) - own.shape[1])
    index = _smallest(squared, k)
    exact = (x[:, None] - rows[index]).square().sum(2)
    order = exact.sort(dim=1, stable=True).indices[:, :n_neighbors]
    return exact.gather(1, order).sqrt(), index.gather(1, order)


def _smallest(values: Tensor, k: int) -> Tensor:
    """Return the places of the k smallest values per row: best blocks first."""
    n, m = values.shape
    if m <= 4 * k * BLOCK:
        return values.topk(k, largest=False).indices.sort(1).values
    blocks = values.view(n, m // BLOCK, BLOCK)
    chosen = blocks.amin(2).topk(k, largest=False).indices
    inside = blocks.gather(1, chosen[:, :, None].expand(n, k, BLOCK)).flatten(1)
    place = inside.topk(k, largest=False).indices
    index = chosen.gather(1, place // BLOCK) * BLOCK + place % BLOCK
    return index.sort(1).values
