"""An RBM with some columns held fixed: marginals and draws of the others."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from skebm._torch import make_generator
from skebm.energies import RBM
from skebm.samplers.annealing import AnnealedLayers

MOST_HIDDEN = 16
"""Hidden bits up to which all their states are listed."""

N_CHAINS = 64
"""Annealed chains per row where the hidden states are too many to list."""

N_TEMPERATURES = 200
"""Places on the path of these chains."""

N_STEPS = 100
"""Gibbs steps at the model itself, after annealing, before a row is kept."""

CHUNK_VALUES = 2**22


class Table(NamedTuple):
    """All hidden states, and what they mean for every column.

    Attributes
    ----------
    h : Tensor of shape (2 ** n_hidden, n_hidden)
        The states.
    fields : Tensor of shape (2 ** n_hidden, n_statistics)
        b + W'h.
    log_normalizers : Tensor of shape (2 ** n_hidden, n_features)
        Psi of the fields, column by column.
    bias : Tensor of shape (2 ** n_hidden,)
        c'h.
    """

    h: Tensor
    fields: Tensor
    log_normalizers: Tensor
    bias: Tensor


def hidden_table(rbm: RBM) -> Table:
    """Return all hidden states of an RBM of at most 16 hidden bits.

    Parameters
    ----------
    rbm : RBM
        Built.

    Returns
    -------
    Table
        On the device of the weights.
    """
    index = torch.arange(2**rbm.n_hidden, device=rbm.weight.device)
    bits = torch.arange(rbm.n_hidden, device=rbm.weight.device)
    h = (index[:, None] >> bits & 1).to(rbm.weight)
    fields = rbm.visible_fields(h)
    return Table(h, fields, rbm.layer.log_normalizers(fields), h @ rbm.hidden_bias)


def log_weights(rbm: RBM, rows: Tensor, table: Table) -> Tensor:
    """Return log sum_(missing v) exp(-E(v, h)) for rows and all hidden states.

    Parameters
    ----------
    rbm : RBM
        Built.
    rows : Tensor of shape (n, d)
        Rows; NaN entries are summed over.
    table : Table
        Of `hidden_table`.

    Returns
    -------
    Tensor of shape (n, 2 ** n_hidden)
        Joint log weights of the observed entries with each hidden state.
    """
    missing = rows.isnan()
    known = torch.where(missing, rows.new_zeros(()), rows)
    phi = rbm.layer.statistics(known) * ~rbm.layer.over_statistics(missing)
    own = (rbm.layer.self_energies(known) * ~missing).sum(1)
    summed = missing.to(rows) @ table.log_normalizers.T
    return phi @ table.fields.T + summed + table.bias - own[:, None]


def marginal_energies(rbm: RBM, rows: Tensor, *, seed: int) -> Tensor:
    """Return E of the observed entries, -log sum_(missing v, h) exp(-E(v, h)).

    Exact for complete rows and up to 16 hidden bits. Else annealed importance sampling
    with the observed entries held fixed, each row by itself and with the same noise.

    Parameters
    ----------
    rbm : RBM
        Built.
    rows : Tensor of shape (n, d)
        Rows; NaN entries are summed over.
    seed : int
        Of the noise.

    Returns
    -------
    Tensor of shape (n,)
        Marginal free energies.
    """
    if not rows.isnan().any():
        e: Tensor = rbm(rows)
        return e
    if rbm.n_hidden <= MOST_HIDDEN:
        table = hidden_table(rbm)
        pieces = torch.split(rows, max(1, CHUNK_VALUES // len(table.h)))
        return torch.cat([-log_weights(rbm, p, table).logsumexp(1) for p in pieces])
    return torch.stack([_annealed(rbm, row, seed) for row in rows])


def expected_statistics(rbm: RBM, rows: Tensor) -> Tensor:
    """Return E[phi(v)] of rows given their observed entries, hidden bits summed out.

    Parameters
    ----------
    rbm : RBM
        Built, of at most 16 hidden bits.
    rows : Tensor of shape (n, d)
        Rows; NaN entries are summed over.

    Returns
    -------
    Tensor of shape (n, n_statistics)
        Expectations under p(h | observed entries); those of observed columns mean
        nothing.
    """
    table = hidden_table(rbm)
    mean = rbm.layer.mean(table.fields)
    pieces = torch.split(rows, max(1, CHUNK_VALUES // len(table.h)))
    return torch.cat([log_weights(rbm, p, table).softmax(1) @ mean for p in pieces])


def _annealed(rbm: RBM, row: Tensor, seed: int) -> Tensor:
    """Return the marginal free energy of one row, shape ()."""
    missing = row.isnan()
    if not missing.any():
        e: Tensor = rbm(row[None])[0]
        return e
    g = make_generator(seed, row.device)
    _, log_w = anneal(rbm, row.expand(N_CHAINS, -1), generator=g)
    return math.log(N_CHAINS) - log_w.logsumexp(0)


def anneal(rbm: RBM, rows: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
    """Fill the missing entries of rows on the way from independent columns.

    Parameters
    ----------
    rbm : RBM
        Built.
    rows : Tensor of shape (n, d)
        Rows; NaN entries are drawn, one chain per row.
    generator : Generator
        Source of randomness, on the device of the rows.

    Returns
    -------
    v : Tensor of shape (n, d)
        The rows filled.
    log_weights : Tensor of shape (n,)
        E[exp(log w)] is the sum of exp(-E(v, h)) over the missing entries and h.
    """
    layers = AnnealedLayers(rbm, rbm.start)
    missing = rows.isnan()
    free = rbm.layer.over_statistics(missing)
    start = layers.start.expand(len(rows), -1)
    draws = rbm.layer.sample(start, generator=generator)
    v = torch.where(missing, draws, rows)
    known = torch.where(missing, rows.new_zeros(()), rows)
    own = (rbm.layer.self_energies(known) * ~missing).sum(1)
    psi = (rbm.layer.log_normalizers(start) * missing).sum(1)
    observed = (rbm.layer.statistics(known) * ~free) @ layers.visible_bias
    log_w = psi + observed - own + rbm.n_hidden * math.log(2)
    softplus = torch.nn.functional.softplus
    change = free * (layers.visible_bias - layers.start)
    for i in range(N_TEMPERATURES):
        now, then = i / N_TEMPERATURES, (i + 1) / N_TEMPERATURES
        phi = rbm.layer.statistics(v)
        fields = layers.hidden_fields(phi)
        log_w = log_w + (softplus(then * fields) - softplus(now * fields)).sum(1)
        log_w = log_w + (then - now) * (phi * change).sum(1)
        v = torch.where(missing, layers.move(v, then, generator=generator), rows)
    return v, log_w


def draw_missing(rbm: RBM, rows: Tensor, *, generator: Generator) -> Tensor:
    """Draw the missing entries of rows given the observed ones.

    Exact up to 16 hidden bits; else annealed from independent columns, then 100 Gibbs
    steps.

    Parameters
    ----------
    rbm : RBM
        Built.
    rows : Tensor of shape (n, d)
        Rows; a row of NaN alone is a draw of the model.
    generator : Generator
        Source of randomness, on the device of the rows.

    Returns
    -------
    Tensor of shape (n, d)
        The rows filled.
    """
    missing = rows.isnan()
    layers = AnnealedLayers(rbm)
    if rbm.n_hidden <= MOST_HIDDEN:
        table = hidden_table(rbm)
        found = []
        for piece in torch.split(rows, max(1, CHUNK_VALUES // len(table.h))):
            p = log_weights(rbm, piece, table).softmax(1)
            which = torch.multinomial(p, 1, generator=generator)[:, 0]
            found.append(layers.visible_draw(table.h[which], generator=generator))
        return torch.where(missing, torch.cat(found), rows)
    v, _ = anneal(rbm, rows, generator=generator)
    for _ in range(N_STEPS):
        v = torch.where(missing, layers.move(v, generator=generator), rows)
    return v
