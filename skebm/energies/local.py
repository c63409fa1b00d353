"""E(x) = log d(x) - rescaling * mean log d(neighbours) + tangent_weight * log r(x)."""

from typing import Self

import torch
from torch import Tensor

from skebm._torch import chunk_rows, in_chunks
from skebm.energies.energy import Energy
from skebm.energies.neighbors import nearest, search_table

RIDGE = 0.1
"""Share of the mean neighbour variance that flattens the local plane."""

TINY = 1e-12
"""Keeps logarithms and ridges finite where all rows coincide."""


class LocalMemory(Energy):
    """Stored rows at low temperature: distance to the data, in local units.

    E(x) = log(d(x) + c) - a * mean_j log(d(xi_j) + c) + b * log(r(x) + c')

    d is the mean distance to the k nearest stored rows xi_j and c = 0.05 median d. The
    second term measures d in units of its neighbourhood, in part (a < 1): sparse
    regions are not anomalous as such. r is the distance to the ridge-flattened plane
    through the ``n_tangent`` nearest rows (c' = 0.05 median r): data lie near curved
    surfaces, and a row off the surface is stranger than one that slid along it.

    Each stored row is measured with its own copy left out, and a new row counts as a
    neighbour of its neighbours, so both meet the same function of the rows around.
    exp(-E) has no finite integral: this energy ranks rows, it is no density.

    Parameters
    ----------
    n_neighbors : int, default=5
        k >= 1.
    rescaling : float, default=0.25
        Exponent a of the local scale, in [0, 1].
    n_tangent : int, default=20
        Neighbours that span the local plane, >= 2.
    tangent_weight : float, default=0.5
        Weight b of the distance to the local plane, >= 0.

    Attributes
    ----------
    rows : Tensor of shape (m, d)
        Stored rows.
    stored_energy : Tensor of shape (m,)
        E of the stored rows, own copy left out.

    Notes
    -----
    Search O(n m d). Limits: distances lose meaning where most columns are noise.

    References
    ----------
    .. [1] Breunig, Kriegel, Ng, Sander (2000), LOF: identifying density-based local
       outliers, SIGMOD.
    .. [2] Vincent, Bengio (2003), Manifold Parzen windows, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import LocalMemory
    >>> energy = LocalMemory().store(torch.arange(20.0)[:, None])
    >>> bool(energy(torch.tensor([[30.0]])) > energy(torch.tensor([[10.0]])))
    True
    """

    rows: Tensor
    table: Tensor
    distance: Tensor
    total: Tensor
    offset: Tensor
    stored_energy: Tensor

    def __init__(
        self,
        n_neighbors: int = 5,
        rescaling: float = 0.25,
        n_tangent: int = 20,
        tangent_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.n_neighbors = n_neighbors
        self.rescaling = rescaling
        self.n_tangent = n_tangent
        self.tangent_weight = tangent_weight

    def store(
        self, x: Tensor, seen: Tensor | None = None, own: Tensor | None = None
    ) -> Self:
        """Keep the rows of ``x`` and measure each without its own copy.

        Parameters
        ----------
        x : Tensor of shape (m, d)
            Rows, m >= 2.
        seen : Tensor of shape (m, d), default=None
            The same rows as they look when scored, where coordinates depend on whether
            a row was seen; ``x`` by default.
        own : Tensor of shape (m,), default=None
            The stored row that counts as each row's own copy; itself by default.

        Returns
        -------
        self : LocalMemory
            The energy with its rows.
        """
        own = torch.arange(len(x), device=x.device) if own is None else own
        seen = x if seen is None else seen
        self.register_buffer("rows", x)
        self.register_buffer("table", search_table(x))
        size = chunk_rows(*x.shape)
        distance, index, residual = in_chunks(self._measure, size, seen, own)
        middle = torch.stack([distance.mean(1).median(), residual.median()])
        self.register_buffer("distance", distance)
        self.register_buffer("offset", 0.05 * middle + TINY)
        self.register_buffer("total", distance.sum(1))
        (e,) = in_chunks(self._energy, size, distance, index, residual, own)
        self.register_buffer("stored_energy", e)
        return self

    def forward(self, x: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the energy of rows ``x``.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        own : Tensor of shape (n,) or (n, c), default=None
            The stored copies of each row, which are left out; -1 for none.

        Returns
        -------
        Tensor of shape (n,)
            E(x).
        """
        own = x.new_full((len(x),), -1, dtype=torch.long) if own is None else own
        return self._energy(*self._measure(x, own), own)[0]

    def _measure(self, x: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return distances (n, k), neighbours (n, k), distance to the plane (n,)."""
        k, t = (min(n, len(self.rows) - 1) for n in (self.n_neighbors, self.n_tangent))
        if self.tangent_weight == 0:
            distance, index = nearest(x, self.rows, self.table, k, own)
            return distance, index, distance[:, 0]
        distance, index = nearest(x, self.rows, self.table, max(k, t), own)
        residual = plane_distance(x, self.rows[index[:, :t]])
        return distance[:, :k], index[:, :k], residual

    def _energy(
        self, distance: Tensor, index: Tensor, residual: Tensor, own: Tensor
    ) -> tuple[Tensor]:
        """Return E from distances (n, k), neighbours (n, k) and residuals (n,)."""
        k = distance.shape[1]
        near, off = self.offset
        gain = (self.distance[index][:, :, -1] - distance).clamp(min=0)
        is_new = own.view(len(own), -1)[:, :1] < 0
        gain = torch.where(is_new, gain, 0.0)
        scale = (self.total[index] - gain) / k
        e = (distance.sum(1) / k + near).log()
        e = e - self.rescaling * (scale + near).log().mean(1)
        if self.tangent_weight > 0:
            e = e + self.tangent_weight * (residual + off).log()
        return (e,)


def plane_distance(x: Tensor, around: Tensor) -> Tensor:
    """Return |x - m - C'w|, the distance to the local plane of the rows ``around``.

    C are the rows about their mean m, w = (C C' + l I)^-1 C (x - m), and the ridge l is
    `RIDGE` times the mean diagonal of C C'.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.
    around : Tensor of shape (n, t, d)
        Neighbours of each row.

    Returns
    -------
    Tensor of shape (n,)
        Distances, >= 0, computed in float64.
    """
    wide = around.double()
    mean = wide.mean(1)
    centered, offset = wide - mean[:, None], (x - mean)[:, :, None]
    gram = centered @ centered.mT
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1) + TINY
    gram = gram + torch.diag_embed(ridge[:, None].expand(-1, gram.shape[1]))
    weights = torch.cholesky_solve(centered @ offset, torch.linalg.cholesky(gram))
    residual = offset - centered.mT @ weights
    return residual.squeeze(2).square().sum(1).sqrt().to(x.dtype)
