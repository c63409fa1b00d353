"""Columns with two values: how far apart they are, and what a rare one costs alone."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Generator, Tensor, nn

MISMATCH = 2.0
"""Squared distance of two rows that differ in a category: that of two random numbers,
E (z - z')^2, which have unit variance."""

MOST_LEVELS = 100
"""Columns of a one-hot block, at most."""

TYPICAL = 0.9
"""Quantile of the energies at which a level is compared with all rows."""

MOST_ROWS = 5000
"""Rows of the shuffled table, at most."""

FEWEST_QUERIES, MOST_QUERIES = 20, 200
"""Rows that are given a level to find its cost."""

GROUP_SHARE, GROUP_SIZE = 0.01, 5
"""Rows that make a group: a share of all, and a number of rows."""

Store = Callable[[Tensor], tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]]
"""From rows to their energies, and to a function (rows, own) -> energies."""


def one_hot_blocks(x: Tensor) -> Tensor:
    """Return the block of each column: neighbours of two values, one high in every row.

    A column of two values in no such block is a block of its own.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Training rows.

    Returns
    -------
    Tensor of shape (d,), int64
        The first column of each column's block; -1 for columns of other numbers.
    """
    low, high = x.amin(0), x.amax(0)
    is_high = x == high
    paired = (is_high | (x == low)).all(0) & (high > low)
    d = x.shape[1]
    block = torch.where(paired.cpu(), torch.arange(d), -1)
    j = 0
    while j < d:
        end = _end_of_block(is_high, paired, j) if paired[j] else None
        if end is not None:
            block[j:end] = j
        j = j + 1 if end is None else end
    return block.to(x.device)


def _end_of_block(is_high: Tensor, paired: Tensor, start: int) -> int | None:
    """Return where the one-hot block from ``start`` ends, None if there is none."""
    taken = is_high[:, start].clone()
    for k in range(start + 1, min(start + MOST_LEVELS, len(paired))):
        if not paired[k] or bool((taken & is_high[:, k]).any()):
            return None
        taken |= is_high[:, k]
        if bool(taken.all()):
            return k + 1
    return None


def mismatch_gaps(block: Tensor) -> Tensor:
    """Return how far apart a column's two values are, so that a mismatch costs 2.

    In a one-hot block a mismatch moves two columns.

    Parameters
    ----------
    block : Tensor of shape (d,)
        Of `one_hot_blocks`.

    Returns
    -------
    Tensor of shape (d,)
        sqrt(2) for a column by itself, 1 in a block of more, 0 for other numbers.
    """
    size = (block[:, None] == block).sum(1)
    gap = torch.where(size > 1, (MISMATCH / 2) ** 0.5, MISMATCH**0.5)
    return torch.where(block < 0, 0.0, gap).double()


class LevelCosts(nn.Module):
    """c(x) = (sum_j c_j(x_j)^2)^(1/2): what the row's levels cost by themselves.

    A level of few rows has few near neighbours, so its rows have high energies even
    where it says nothing about the other columns. Its cost is what is left of that
    when it does say nothing: in a table whose categories are shuffled, each by itself,
    the 0.9 quantile of the energies of random rows that are given the level, less that
    of the other rows. A level of fewer than 1% of the other rows, or of 5, is in part
    an oddity: its cost counts in proportion. Costs of several categories add as
    distances do, by their squares. With so many levels that none of them weighs much,
    there are none.

    Attributes
    ----------
    values : Tensor of shape (2, d)
        The two values of each column.
    counts : Tensor of shape (2, d)
        How many rows have them.
    costs : Tensor of shape (2, d)
        What they cost in a group; 0 for columns of other numbers.
    """

    values: Tensor
    counts: Tensor
    costs: Tensor

    def fit(
        self, x: Tensor, block: Tensor, store: Store, *, generator: Generator
    ) -> Self:
        """Find the costs in a shuffled table.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Training rows.
        block : Tensor of shape (d,)
            Of `one_hot_blocks`.
        store : callable
            Rows -> their energies, own copy left out, and the energy of rows with the
            places of the copies to leave out.
        generator : Generator
            Source of the shuffles, on the CPU.

        Returns
        -------
        self : LevelCosts
            The fitted costs.
        """
        self.register_buffer("values", torch.stack([x.amin(0), x.amax(0)]))
        counts = torch.stack([(x == value).sum(0) for value in self.values])
        self.register_buffer("counts", counts.double())
        self.register_buffer("costs", torch.zeros_like(self.counts))
        self.group_size = max(GROUP_SIZE, GROUP_SHARE * len(x))
        levels = self._minorities(block, len(x))
        n_queries = max(len(x), 2000) // max(1, len(levels))
        if not levels or n_queries < FEWEST_QUERIES:
            return self
        rows = _shuffled(x, block, generator)
        energy, measure = store(rows)
        n_queries = min(n_queries, MOST_QUERIES, len(rows))
        for side, column in levels:
            own = torch.randperm(len(rows), generator=generator)[:n_queries]
            own = own.to(x.device)
            given = rows[own]
            members = block == block[column]
            given[:, members] = self.values[0, members]
            given[:, column] = self.values[side, column]
            others = energy[rows[:, column] != self.values[side, column]]
            usual = others.quantile(TYPICAL)
            cost = measure(given, own).quantile(TYPICAL) - usual
            self.costs[side, column] = cost.clamp(min=0)
        return self

    def forward(self, x: Tensor, n_left_out: Tensor) -> Tensor:
        """Return c of rows ``x`` of which some stored copies do not count.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        n_left_out : Tensor of shape (n,)
            How many copies.

        Returns
        -------
        Tensor of shape (n,)
            c(x), float64.
        """
        width = 1e-6 * (self.values[1] - self.values[0]).abs()
        has = (x[:, None] - self.values).abs() <= width
        others = self.counts - n_left_out[:, None, None]
        costs = (others / self.group_size).clamp(0, 1) * self.costs
        total: Tensor = torch.where(has, costs, 0.0).square().sum((1, 2)).sqrt()
        return total

    def _minorities(self, block: Tensor, n_rows: int) -> list[tuple[int, int]]:
        """Return (side, column) of the levels that less than half of the rows have.

        In a one-hot block the low value is no level.
        """
        alone = (block[:, None] == block).sum(1) == 1
        rare = (self.counts > 0) & (2 * self.counts < n_rows) & (block >= 0)
        rare[0] &= alone
        return [(side, column) for side, column in rare.nonzero().tolist()]


def _shuffled(x: Tensor, block: Tensor, generator: Generator) -> Tensor:
    """Return rows with every category in an order of its own; the numbers stay."""
    order = torch.randperm(len(x), generator=generator)[:MOST_ROWS].to(x.device)
    rows = x[order]
    for first in sorted(set(block.tolist())):
        if first >= 0:
            order = torch.randperm(len(rows), generator=generator).to(x.device)
            members = block == first
            rows[:, members] = rows[order][:, members]
    return rows
