"""The default energy of the outlier detector: what is strange in a table."""

from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._torch import chunk_rows, in_chunks
from skebm.energies.bag import MemoryBag
from skebm.energies.energy import Energy
from skebm.energies.levels import LevelCosts, mismatch_gaps, one_hot_blocks
from skebm.energies.local import LocalMemory
from skebm.energies.memory import Memory
from skebm.energies.views import Ranked, Standardized, Whitened, row_scale


class AnomalyEnergy(Energy):
    """Strangeness of a row of a table, in units of the training rows' spread.

    With s(e) = (e - median) / IQR over the training rows, each measured with its own
    copy left out:

    - clean training rows: E(x) = s(sum over views of s(L_view(x))), L the
      `LocalMemory` energy (low temperature, all stored rows);
    - rows that may hold anomalies: E(x) = max(that, s(R(x))), L without its local terms
      (a clump of anomalies would set the local scale) and R the `MemoryBag` energy
      (high temperature, small trimmed memories). Isolated rows are high in L, clumps
      in R; a row is strange if either says so.

    In both cases E is less by what the row's rare categories cost by themselves
    (`LevelCosts`).

    Views: half-whitened z, its covariance shrunk for clean rows, and normal scores
    (clean rows) or their mean with z (rows that may hold anomalies: ranks alone close
    the gap to a clump); where at least half of the columns share a unit (pixels,
    ratings) one view, z with a pooled scale and the shared directions stressed. A
    column of two values, or a block of one-hot columns, is a category: rows that differ
    in it are sqrt(2) apart, as two random numbers are on average, and in the second
    view of rows that may hold anomalies it is half-whitened too, so that a rare
    combination is far from all others. R sees the last view. Views are computed in
    float64 and rounded to float32, which also removes what a matrix product's rounding
    owes to the place of a row in its batch.

    Parameters
    ----------
    clean : bool, default=True
        Whether the training rows are known to be free of anomalies.
    takes_rarity_off : bool, default=True
        Whether E is less by what rare categories cost by themselves.

    Attributes
    ----------
    rows : Tensor of shape (m, d)
        Stored rows, in the units of the table.
    stored_energy : Tensor of shape (m,)
        E of the stored rows, own copy left out.

    Notes
    -----
    Fit and score cost O(n m d); memory O(m d) plus one chunk. Limits: exp(-E) is not
    normalisable, so E ranks rows and is no negative log-density.

    References
    ----------
    .. [1] Ramaswamy, Rastogi, Shim (2000), Efficient algorithms for mining outliers
       from large data sets, SIGMOD.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import AnomalyEnergy
    >>> g = torch.Generator().manual_seed(0)
    >>> energy = AnomalyEnergy().store(torch.randn(99, 2, generator=g), generator=g)
    >>> bool(energy(torch.full((1, 2), 9.0)) > energy(torch.zeros(1, 2)))
    True
    """

    rows: Tensor
    block: Tensor
    scales: Tensor
    stored_energy: Tensor
    memories: nn.ModuleList
    level_costs: LevelCosts | None
    n_stages = 4

    def __init__(self, clean: bool = True, takes_rarity_off: bool = True) -> None:
        super().__init__()
        self.clean = clean
        self.takes_rarity_off = takes_rarity_off

    def store(
        self, x: Tensor, own: Tensor | None = None, *, generator: Generator
    ) -> Self:
        """Fit the views and store the rows of ``x``.

        Parameters
        ----------
        x : Tensor of shape (m, d)
            Rows, m >= 2, float32 or float64.
        own : Tensor of shape (m,), default=None
            The stored row that counts as each row's own copy; itself by default.
        generator : Generator
            Source of the bag's draws, on the CPU.

        Returns
        -------
        self : AnomalyEnergy
            The energy with its rows.
        """
        own = torch.arange(len(x), device=x.device) if own is None else own
        for _ in self.stages(x, own, generator=generator):
            pass
        return self

    def stages(self, x: Tensor, own: Tensor, *, generator: Generator) -> Iterator[str]:
        """Do the work of `store` in ``n_stages`` parts.

        Parameters
        ----------
        x : Tensor of shape (m, d)
            Rows, m >= 2, float32 or float64.
        own : Tensor of shape (m,)
            The stored row that counts as each row's own copy.
        generator : Generator
            Source of the bag's draws, on the CPU.

        Yields
        ------
        str
            The name of each part, when it is done.
        """
        self.register_buffer("rows", x)
        self.level_costs = None
        self._fit_views(x)
        yield "views"
        views = in_chunks(self._look, self.chunk, x, torch.full_like(own, -1))
        seen = in_chunks(self._look, self.chunk, x, own)
        pairs = zip(views, seen, strict=True)
        memories = [self._memory().store(*pair, own) for pair in pairs]
        self.memories = nn.ModuleList(memories)
        terms = [memory.stored_energy for memory in memories]
        yield "neighbours"
        if not self.clean:
            self.bag = MemoryBag().store(views[-1], seen[-1], own, generator=generator)
            terms.append(self.bag.stored_energy)
        self._fit_scales([term.double() for term in terms])
        yield "scales"
        if self.takes_rarity_off and self._has_categories():
            self._fit_level_costs(x, own, generator)
        yield "levels"

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
            E(x), float64.
        """
        own = x.new_full((len(x),), -1, dtype=torch.long) if own is None else own
        views = self._look(x, own)
        terms = [m(z, own) for m, z in zip(self.memories, views, strict=True)]
        if not self.clean:
            terms.append(self.bag(views[-1], own))
        return self._combine([term.double() for term in terms]) - self._cost(x, own)

    def sample(self, n_samples: int, threshold: float, generator: Generator) -> Tensor:
        """Draw rows from a kernel density over the stored rows with E <= threshold.

        The density is that of `Memory` in standardised columns; 1/beta is the median
        squared distance to the nearest other row, per column, over 1,000 rows at most.
        Constant columns stay constant.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        threshold : float
            Energy above which stored rows are left out; the lower half always stays.
        generator : Generator
            Source of randomness, on the CPU.

        Returns
        -------
        Tensor of shape (n_samples, d)
            Rows in the units of the table, float64, on the CPU.
        """
        threshold = max(threshold, float(self.stored_energy.median()))
        typical = self.rows[self.stored_energy <= threshold].double()
        standardized = Standardized().fit(typical)
        z = standardized(typical)
        some = torch.randperm(len(z), generator=generator)[:1000].to(z.device)
        gaps = torch.cdist(z[some], z).topk(min(2, len(z)), largest=False).values[:, -1]
        variance = float(gaps.square().median()) / z.shape[1] + 1e-12
        density = Memory(1 / variance).store(z.cpu())
        drawn = density.sample(n_samples, generator=generator)
        center, scale = standardized.center.cpu(), standardized.scale.cpu()
        varies = standardized.varies.cpu()
        return torch.where(varies, center + scale * drawn, center)

    @property
    def chunk(self) -> int:
        """Rows per chunk at which a chunk's matrices stay near a core's cache.

        Returns
        -------
        int
            Between 32 and 128.
        """
        return chunk_rows(*self.rows.shape)

    def _memory(self) -> LocalMemory:
        """Return the memory of one view, without weights."""
        if self.clean:
            return LocalMemory()
        return LocalMemory(rescaling=0.0, tangent_weight=0.0)

    def _fit_views(self, x: Tensor) -> None:
        """Fit the coordinates in float64."""
        wide = x.double()
        self.register_buffer("block", one_hot_blocks(x))
        gap = mismatch_gaps(self.block)
        self.standardized = Standardized().fit(wide, gap)
        z = self.standardized(wide)
        pooled = self.standardized.pooled
        power = 0.25 if pooled else -0.25
        self.whitened = Whitened(power, shrinks=self.clean).fit(z)
        self.ranked = None if pooled else Ranked().fit(z, self.standardized.varies)

    def _look(self, x: Tensor, own: Tensor) -> tuple[Tensor, ...]:
        """Return the views of rows ``x``, each (n, d); the bag sees the last one."""
        z, seen = self.standardized(x.double()), own.view(len(x), -1)[:, 0] >= 0
        views = [self.whitened(z, seen)]
        if self.ranked is not None:
            within, beyond = self.ranked(z, seen)
            numbers = within + beyond if self.clean else 0.5 * (z + within)
            categories = z if self.clean else views[0]
            views.append(torch.where(self.block < 0, numbers, categories))
        return tuple(view.float() for view in views)

    def _fit_scales(self, terms: list[Tensor]) -> None:
        """Take median and spread of every term, then of the local sum."""
        n_local = len(self.memories)
        scales = [_location(term) for term in terms]
        local = _local_sum(terms[:n_local], scales[:n_local])
        scales.insert(n_local, _location(local))
        self.register_buffer("scales", torch.stack(scales))
        e = in_chunks(lambda *t: (self._combine(list(t)),), self.chunk, *terms)[0]
        self.register_buffer("stored_energy", e)

    def _has_categories(self) -> bool:
        """Return whether columns of two values are read as categories."""
        return self.ranked is not None and bool((self.block >= 0).any())

    def _fit_level_costs(self, x: Tensor, own: Tensor, generator: Generator) -> None:
        """Take what rare levels cost by themselves off the stored energies."""

        def store(rows: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
            energy = AnomalyEnergy(self.clean, takes_rarity_off=False)
            energy.store(rows, generator=generator)
            return energy.stored_energy, energy

        costs = LevelCosts().fit(x, self.block, store, generator=generator)
        self.level_costs = costs
        (cost,) = in_chunks(lambda *c: (self._cost(*c),), self.chunk, x, own)
        self.stored_energy -= cost

    def _cost(self, x: Tensor, own: Tensor) -> Tensor:
        """Return what the rows' levels cost by themselves, shape (n,), float64."""
        if self.level_costs is None:
            return x.new_zeros(len(x), dtype=torch.float64)
        cost: Tensor = self.level_costs(x, (own.view(len(x), -1) >= 0).sum(1))
        return cost

    def _combine(self, terms: list[Tensor]) -> Tensor:
        """Return the energy from the terms: local ones first, then the bag's."""
        n_local = len(self.memories)
        local = _local_sum(terms[:n_local], list(self.scales[:n_local]))
        e = _scaled(local, self.scales[n_local])
        if self.clean:
            return e
        return torch.maximum(e, _scaled(terms[-1], self.scales[-1]))


def _local_sum(terms: list[Tensor], scales: list[Tensor]) -> Tensor:
    """Return the sum of the scaled terms."""
    pairs = zip(terms, scales, strict=True)
    return torch.stack([_scaled(term, scale) for term, scale in pairs]).sum(0)


def _location(values: Tensor) -> Tensor:
    """Return (median, spread) of a vector as one tensor."""
    return torch.stack([values.median(), row_scale(values)])


def _scaled(values: Tensor, location: Tensor) -> Tensor:
    """Return (values - median) / spread."""
    return (values - location[0]) / location[1]
