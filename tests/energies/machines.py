"""RBMs over every kind of unit, and all their states."""

import math

import torch

from skebm.energies import (
    RBM,
    BernoulliUnits,
    CategoricalUnits,
    GaussianUnits,
    MixedUnits,
)

WIDTHS = {"bits": 4, "codes": 3, "gaussian": 1, "mixed": 3}
"""Columns of every kind of layer whose states a test can list."""

SPACING = 0.15
"""Of the line that stands for a real column: sums over it are integrals to 1e-12."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def units(kind, n):
    """Return a layer of n columns; of codes and of mixed ones n is 3 k."""
    k = n // 3
    codes = CategoricalUnits([3, 2, 4, 2][:k])
    return {
        "bits": BernoulliUnits(),
        "gaussian": GaussianUnits(),
        "codes": CategoricalUnits([2, 4, 3] * k),
        "mixed": MixedUnits([(BernoulliUnits(), k), (GaussianUnits(), k), (codes, k)]),
    }[kind]


def randomized(module, scale=1.0, seed=0):
    """Return the module in float64 with normal weights."""
    g = generator(seed)
    module.double()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.normal_(0, 0.3 if "variance" in name else scale, generator=g)
    return module


def machine(kind="bits", n=None, n_hidden=5, *, scale=1.0, seed=0):
    """Return an RBM with random weights, small enough to list unless n is given."""
    n = n or WIDTHS[kind]
    return randomized(RBM(n_hidden, units(kind, n)).build(n), scale, seed)


def states(*sizes):
    """Return all rows of codes, shape (prod sizes, len(sizes))."""
    rows = torch.cartesian_prod(*[torch.arange(k).double() for k in sizes])
    return rows.view(-1, len(sizes))


def bits(n):
    return states(*[2] * n)


def listed(kind):
    """Return all states of a layer of `WIDTHS` columns and the log size of a cell."""
    line = SPACING * torch.arange(-100, 101).double()
    columns = {
        "bits": [torch.arange(2).double()] * 4,
        "codes": [torch.arange(k).double() for k in (2, 4, 3)],
        "gaussian": [line],
        "mixed": [torch.arange(2).double(), line, torch.arange(3).double()],
    }[kind]
    cell = math.log(SPACING) if kind in ("gaussian", "mixed") else 0.0
    return torch.cartesian_prod(*columns).view(-1, len(columns)), cell


def law(energy, rows):
    """Return the probabilities of rows that are all there is."""
    with torch.no_grad():
        return (-energy(rows)).softmax(0)


def frequencies(rows, table):
    """Return how often each row of a table of codes comes, shape (len(table),)."""
    base = int(table.max()) + 1
    powers = base ** torch.arange(table.shape[1])
    codes, known = rows.long() @ powers, table.long() @ powers
    places = torch.full((base ** table.shape[1],), -1)
    places[known] = torch.arange(len(known))
    return torch.bincount(places[codes], minlength=len(table)) / len(rows)


def variation(p, q):
    """Return the total variation between two laws."""
    return float((p.double() - q.double()).abs().sum() / 2)


def table_of(rbm, n, seed=3):
    """Return n random rows that fit the layer of an RBM."""
    g = generator(seed)
    fields = torch.randn(n, rbm.layer.n_statistics, generator=g).double()
    with torch.no_grad():
        return rbm.layer.sample(2 * fields, generator=g)
