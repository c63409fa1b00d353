"""Units of a visible layer that are codes, and layers of several kinds of units."""

from collections.abc import Sequence
from numbers import Integral
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._torch import uniform_like
from skebm.energies.units import Units


class CategoricalUnits(Units):
    """Codes 0, 1, ..., K - 1: phi(v) = one-hot, p(v = k | f) = softmax(f)_k.

    Parameters
    ----------
    n_categories : int or sequence of int, default=2
        K of every column, >= 2.

    References
    ----------
    .. [1] Salakhutdinov, Mnih, Hinton (2007), Restricted Boltzmann machines for
       collaborative filtering, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import CategoricalUnits
    >>> CategoricalUnits(3).build(1).statistics(torch.tensor([[2.0]])).tolist()
    [[0.0, 0.0, 1.0]]
    """

    codes: Tensor
    column: Tensor
    place: Tensor

    def __init__(self, n_categories: int | Sequence[int] = 2) -> None:
        super().__init__()
        self.n_categories = n_categories

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Lay the columns' codes side by side.

        Raises
        ------
        ValueError
            If ``n_categories`` does not give one number >= 2 for every column.
        """
        self.n_features = n_features
        sizes = torch.tensor(self.states())
        self.n_statistics = int(sizes.sum())
        self.register_buffer(
            "column", torch.arange(n_features).repeat_interleave(sizes)
        )
        starts = sizes.cumsum(0) - sizes
        codes = torch.arange(self.n_statistics) - starts[self.column]
        self.register_buffer("codes", codes)
        # One place beyond the fields holds -inf, for columns of fewer categories.
        place = torch.full((n_features, int(sizes.max())), self.n_statistics)
        place[self.column, codes] = torch.arange(self.n_statistics)
        self.register_buffer("place", place)
        return self

    def states(self) -> Sequence[int]:
        """Return K of every column."""
        given = self.n_categories
        sizes = (
            [int(given)] * self.n_features
            if isinstance(given, int | Integral)
            else list(given)
        )
        if len(sizes) != self.n_features or min(sizes) < 2:
            raise ValueError(
                f"Got n_categories={given!r} for {self.n_features} columns, but "
                "expected one number >= 2 for every column."
            )
        return sizes

    def over_statistics(self, columns: Tensor) -> Tensor:
        """Repeat the value of a column for each of its codes."""
        return columns[:, self.column]

    def statistics(self, v: Tensor) -> Tensor:
        """Return one-hot codes, shape (n, n_statistics); zeros for a code beyond K."""
        return (v[:, self.column] == self.codes).to(v)

    def self_energies(self, v: Tensor) -> Tensor:
        """Return zeros, shape (n, d)."""
        return torch.zeros_like(v)

    def log_normalizers(self, fields: Tensor) -> Tensor:
        """Return log sum_k exp(f_k), shape (n, d)."""
        return self._padded(fields).logsumexp(2)

    def sample(
        self, fields: Tensor, *, temperature: float | Tensor = 1.0, generator: Generator
    ) -> Tensor:
        """Return codes, each the largest field with Gumbel noise, shape (n, d)."""
        padded = self._padded(fields / temperature)
        noise = -(-uniform_like(padded, generator).clamp(min=1e-30).log()).log()
        return (padded + noise).argmax(2).to(fields)

    def mean(self, fields: Tensor) -> Tensor:
        """Return the probabilities of the codes, shape (n, n_statistics)."""
        return (fields - self.log_normalizers(fields)[:, self.column]).exp()

    def guess(self, mean: Tensor) -> Tensor:
        """Return the likeliest codes, shape (n, d)."""
        return self._padded(mean).argmax(2).to(mean)

    def base_fields(self, v: Tensor) -> Tensor:
        """Return the log-frequencies of the codes, half a row added to each."""
        counts = self.statistics(v).double().sum(0) + 0.5
        total = torch.zeros(self.n_features, dtype=counts.dtype, device=v.device)
        total.index_add_(0, self.column, counts)
        return (counts / total[self.column]).log().to(v)

    def _padded(self, fields: Tensor) -> Tensor:
        """Return the fields by column, (n, d, K), -inf beyond a column's codes."""
        beyond = fields.new_full((len(fields), 1), -torch.inf)
        return torch.cat([fields, beyond], 1)[:, self.place]


class MixedUnits(Units):
    """Columns of several kinds side by side.

    Parameters
    ----------
    parts : sequence of (Units, int)
        Kinds of units and how many columns each takes, in the order of the columns.

    References
    ----------
    .. [1] Welling, Rosen-Zvi, Hinton (2004), Exponential family harmoniums with an
       application to information retrieval, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import BernoulliUnits, GaussianUnits, MixedUnits
    >>> units = MixedUnits([(BernoulliUnits(), 1), (GaussianUnits(), 1)]).build(2)
    >>> units.predict(torch.tensor([[0.0, 3.0]])).tolist()
    [[0.5, 3.0]]
    """

    def __init__(self, parts: Sequence[tuple[Units, int]]) -> None:
        super().__init__()
        self.parts = parts

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build every part.

        Raises
        ------
        ValueError
            If the parts do not take ``n_features`` columns together.
        """
        self.n_features = sum(width for _, width in self.parts)
        if self.n_features != n_features:
            raise ValueError(
                f"Got {n_features} columns, but the parts of MixedUnits take "
                f"{self.n_features}. Give every column to one part."
            )
        for units, width in self.parts:
            units.build(width)
        self._layers = nn.ModuleList(units for units, _ in self.parts)
        self.n_statistics = sum(units.n_statistics for units, _ in self.parts)
        return self

    def over_statistics(self, columns: Tensor) -> Tensor:
        """Repeat the values of the columns for their statistics."""
        pairs = self._columns(columns)
        return self._beside([u.over_statistics(c) for u, c in pairs])

    def statistics(self, v: Tensor) -> Tensor:
        """Return phi of the parts side by side, shape (n, n_statistics)."""
        return self._beside([u.statistics(c) for u, c in self._columns(v)])

    def self_energies(self, v: Tensor) -> Tensor:
        """Return A of every column, shape (n, d)."""
        return self._beside([u.self_energies(c) for u, c in self._columns(v)])

    def log_normalizers(self, fields: Tensor) -> Tensor:
        """Return Psi of every column, shape (n, d)."""
        return self._beside([u.log_normalizers(f) for u, f in self._fields(fields)])

    def sample(
        self, fields: Tensor, *, temperature: float | Tensor = 1.0, generator: Generator
    ) -> Tensor:
        """Return draws of every column, shape (n, d)."""
        pairs = self._fields(fields)
        return self._beside(
            [
                u.sample(f, temperature=temperature, generator=generator)
                for u, f in pairs
            ]
        )

    def mean(self, fields: Tensor) -> Tensor:
        """Return the mean of phi, shape (n, n_statistics)."""
        return self._beside([u.mean(f) for u, f in self._fields(fields)])

    def guess(self, mean: Tensor) -> Tensor:
        """Return the parts' best guesses, shape (n, d)."""
        return self._beside([u.guess(m) for u, m in self._fields(mean)])

    def base_fields(self, v: Tensor) -> Tensor:
        """Return the fields of the parts, shape (n_statistics,)."""
        return torch.cat([u.base_fields(c) for u, c in self._columns(v)])

    def match(self, v: Tensor) -> Self:
        """Fit every part to its columns."""
        for units, columns in self._columns(v):
            units.match(columns)
        return self

    def gradients(self, v: Tensor, fields: Tensor) -> list[Tensor]:
        """Return the gradients of the parts, one after the other."""
        triples = zip(self._columns(v), self._fields(fields), strict=True)
        return [g for (u, c), (_, f) in triples for g in u.gradients(c, f)]

    def states(self) -> Sequence[int] | None:
        """Return the number of values of every column; None with a real column."""
        counts = [units.states() for units, _ in self.parts]
        if any(count is None for count in counts):
            return None
        return [k for count in counts for k in count or ()]

    def _beside(self, parts: list[Tensor]) -> Tensor:
        """Return the parts as one tensor."""
        return torch.cat(parts, 1)

    def _columns(self, v: Tensor) -> list[tuple[Units, Tensor]]:
        """Return every part with its columns of v."""
        columns = torch.split(v, [width for _, width in self.parts], 1)
        return [(u, c) for (u, _), c in zip(self.parts, columns, strict=True)]

    def _fields(self, fields: Tensor) -> list[tuple[Units, Tensor]]:
        """Return every part with its fields."""
        pieces = torch.split(fields, [u.n_statistics for u, _ in self.parts], 1)
        return [(u, f) for (u, _), f in zip(self.parts, pieces, strict=True)]
