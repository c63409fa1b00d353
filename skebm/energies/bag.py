"""E(x) = mean over members of -log sum_j exp(-|x - xi_j|^2 / 2 h^2), trimmed."""

from typing import Self

import torch
from torch import Generator, Tensor

from skebm._torch import chunk_rows, in_chunks
from skebm.energies.energy import Energy

FARTHEST = 1e6
"""Coordinates are clamped here: beyond it every row is as strange as any."""

NARROWEST = 1e-5
"""Least h^2, as a share of the mean squared norm, that float32 products resolve."""


class MemoryBag(Energy):
    """Many small memories at high temperature, built without the strangest rows.

    E(x) = (1/B) sum_b -log sum_{j in b} exp(-|x - xi_j|^2 / (2 h_b^2))

    Each member b holds a few random stored rows. A first bag finds the rows to leave
    out: its h_b is the median distance within which a row finds the ``trim`` share of
    its member, so a clump with less than that share of the rows looks sparser than a
    typical row, however tight it is. The ``trim`` share with the highest energy is
    left out; the second bag is drawn from the rest, with h_b the median distance to
    the nearest other row, and kept. h_b is at least Scott's bandwidth, n_b^(-1/(d+4))
    sd: in few columns nearest rows are too close to smooth anything.

    Parameters
    ----------
    n_members : int, default=32
        B >= 1.
    member_size : int, default=256
        Rows per member, >= 2.
    trim : float, default=0.2
        Share of the stored rows left out of the second bag, in [0, 1).

    Attributes
    ----------
    patterns : Tensor of shape (n_members * member_size, d)
        Rows of the members, float32.
    place : Tensor of shape (n_members * member_size,)
        Which of the rows given to `store` they are.
    stored_energy : Tensor of shape (m,)
        E of the rows given to `store`, own copy left out.

    Notes
    -----
    Cost O(n d n_members member_size). Limits: smooth by design, it misses anomalies
    between nearby clusters.

    References
    ----------
    .. [1] Liu, Ting, Zhou (2008), Isolation forest, ICDM (small subsamples against
       masking).
    .. [2] Scott (1992), Multivariate density estimation, Wiley.
    .. [3] Sugiyama, Borgwardt (2013), Rapid distance-based outlier detection via
       sampling, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MemoryBag
    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(99, 2, generator=g)
    >>> energy = MemoryBag(n_members=4).store(x, generator=g)
    >>> bool(energy(torch.full((1, 2), 9.0)) > energy(torch.zeros(1, 2)))
    True
    """

    patterns: Tensor
    place: Tensor
    seat: Tensor
    bandwidth: Tensor
    table: Tensor
    stored_energy: Tensor

    def __init__(
        self, n_members: int = 32, member_size: int = 256, trim: float = 0.2
    ) -> None:
        super().__init__()
        self.n_members = n_members
        self.member_size = member_size
        self.trim = trim

    def store(
        self,
        x: Tensor,
        seen: Tensor | None = None,
        own: Tensor | None = None,
        *,
        generator: Generator,
    ) -> Self:
        """Draw the members from the rows of ``x``, trim, and draw them again.

        Parameters
        ----------
        x : Tensor of shape (m, d)
            Rows, m >= 2.
        seen : Tensor of shape (m, d), default=None
            The same rows as they look when scored, where coordinates depend on whether
            a row was seen; ``x`` by default.
        own : Tensor of shape (m,), default=None
            The stored row that counts as each row's own copy; itself by default.
        generator : Generator
            Source of the draws, on the CPU.

        Returns
        -------
        self : MemoryBag
            The energy with its members.
        """
        own = torch.arange(len(x), device=x.device) if own is None else own
        seen = x if seen is None else seen
        x = x.float().clamp(-FARTHEST, FARTHEST)
        self._draw(x, torch.arange(len(x)), self.trim, generator)
        kept = max(2, round((1 - self.trim) * len(x)))
        typical = self._energies(seen, own).cpu().sort(stable=True).indices[:kept]
        self._draw(x, typical, 0.0, generator)
        self.register_buffer("stored_energy", self._energies(seen, own))
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
            E(x), float32.
        """
        x = x.float().clamp(-FARTHEST, FARTHEST)
        logits = torch.cat([x, x.new_ones(len(x), 1)], 1) @ self.table
        members = logits.view(len(x), len(self.bandwidth), -1)
        for copies in () if own is None else own.view(len(x), -1).T:
            seat = self.seat[copies][:, :, None]
            taken = (seat >= 0) & (copies[:, None, None] >= 0)
            seat = seat.clamp(min=0)
            left = members.gather(2, seat).masked_fill(taken, -torch.inf)
            members = members.scatter(2, seat, left)
        norm = x.square().sum(1, keepdim=True) / (2 * self.bandwidth)
        return (norm - members.logsumexp(2)).mean(1)

    def _energies(self, x: Tensor, own: Tensor) -> Tensor:
        """Return E of the rows ``x`` in chunks, own copies left out."""
        size = chunk_rows(*x.shape)
        return in_chunks(lambda rows, i: (self(rows, i),), size, x, own)[0]

    def _draw(
        self, x: Tensor, pool: Tensor, reach: float, generator: Generator
    ) -> None:
        """Fill every member with rows of ``pool``; h reaches a share of its rows."""
        size = min(self.member_size, len(pool))
        draws = [
            pool[torch.randperm(len(pool), generator=generator)[:size]]
            for _ in range(self.n_members)
        ]
        place = torch.stack(draws).to(x.device)
        kept = x[pool.to(x.device)]
        scott = size ** (-2 / (x.shape[1] + 4)) * kept.var(0, correction=0).mean()
        norm = kept.square().sum(1).mean()
        floor = torch.maximum(NARROWEST * norm, scott).clamp(min=1e-12)
        reached = [_reach_squared(x[member], reach).median() for member in place]
        self.register_buffer("bandwidth", torch.stack(reached).clamp(min=floor))
        seat = torch.full((len(x), self.n_members), -1, device=x.device)
        seats = torch.arange(size, device=x.device).expand_as(place)
        self.register_buffer("seat", seat.T.scatter(1, place, seats).T.contiguous())
        self.register_buffer("place", place.flatten())
        self.register_buffer("patterns", x[place.flatten()])
        inverse = self.bandwidth.reciprocal().repeat_interleave(size)[:, None]
        norm = self.patterns.square().sum(1, keepdim=True)
        table = torch.cat([inverse * self.patterns, -0.5 * inverse * norm], 1)
        self.register_buffer("table", table.T.contiguous())


def _reach_squared(rows: Tensor, share: float) -> Tensor:
    """Return each row's squared distance to the nearest share of other rows."""
    others = len(rows) - 1
    place = min(max(1, round(share * others)), others)
    return torch.cdist(rows, rows).kthvalue(place + 1, dim=1).values.square()
