"""Coordinates in which distances mean something: standardised, whitened, ranked."""

from typing import Self

import torch
from torch import Tensor, nn

LARGEST = 1e15
"""Coordinates are clamped here, so that squared distances stay finite in float32."""


def row_scale(values: Tensor) -> Tensor:
    """Return the interquartile range of a vector, its sd where that is 0, else 1."""
    ordered = values.sort().values
    low, high = ordered[_rank(values, 0.25)], ordered[_rank(values, 0.75)]
    for scale in (high - low, values.std(correction=0)):
        if scale > 0:
            return scale
    return torch.ones_like(low)


def _rank(values: Tensor, level: float) -> int:
    """Return the index of the ``level`` quantile among the sorted values."""
    return round(level * (len(values) - 1))


def shares_unit(x: Tensor) -> Tensor:
    """Tell which columns lie on one scale that most columns reach the ends of.

    Pixels, percentages and ratings have common bounds. If at least half of the columns
    have the same minimum and maximum and take more than two values, every column
    inside those bounds shares their unit.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Training rows.

    Returns
    -------
    Tensor of shape (d,), bool
        True for the columns that share the unit; all False if there is none.
    """
    low, high = x.amin(0), x.amax(0)
    inside = (x > low) & (x < high)
    graded = inside.any(0)
    none = torch.zeros_like(graded)
    if x.shape[1] < 2 or 2 * int(graded.sum()) < x.shape[1]:
        return none
    ends = torch.stack([low, high], 1)[graded]
    bounds, counts = torch.unique(ends, dim=0, return_counts=True)
    if int(counts.max()) < max(2, x.shape[1] / 2):
        return none
    bottom, top = bounds[counts.argmax()]
    shared: Tensor = (low >= bottom) & (high <= top)
    return shared


class Standardized(nn.Module):
    """z = (x - mean) / sd; columns that share a unit share one sd.

    A constant column gets sd 1: it moves the energy by what it moves, no more.

    Attributes
    ----------
    pooled : bool
        Whether at least half of the columns share a unit.
    """

    center: Tensor
    scale: Tensor
    varies: Tensor

    def fit(self, x: Tensor, gap: Tensor | None = None) -> Self:
        """Take the mean and sd of rows ``x``, float64 of shape (n, d).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        gap : Tensor of shape (d,), default=None
            How far apart the two values of a column are to be; 0 keeps the sd. Has no
            effect where columns share a unit.

        Returns
        -------
        self : Standardized
            The fitted view.
        """
        info = torch.finfo(x.dtype)
        size = x.abs().amax(0).clamp(min=info.tiny)
        mean = (x / size).mean(0)
        sd = (x / size).std(0, correction=0)
        varies = (sd > 10 * info.eps * mean.abs()) & (size * sd > info.tiny)
        shared = shares_unit(x) & varies
        self.pooled = bool(shared.any())
        scale = size * sd
        if self.pooled:
            largest = scale[shared].amax()
            pooled = largest * (scale[shared] / largest).square().mean().sqrt()
            scale = torch.where(shared, pooled, scale)
        elif gap is not None:
            span = size * (x / size).amax(0) - size * (x / size).amin(0)
            scale = torch.where(gap > 0, span / gap.clamp(min=1e-9), scale)
        self.register_buffer("center", torch.where(varies, mean * size, x[0]))
        self.register_buffer("scale", torch.where(varies, scale, 1.0))
        self.register_buffer("varies", varies)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return z, clamped to +-1e15."""
        z: Tensor = (0.5 * x - 0.5 * self.center) / (0.5 * self.scale)
        return z.clamp(-LARGEST, LARGEST)


class Whitened(nn.Module):
    """z V diag(w + 0.05 mean(w))^power V', with V, w from the covariance of z.

    power = -1/4 takes half of the correlation out, so that columns that say the same
    do not outvote the others; power = +1/4 stresses the directions that columns share,
    which removes noise where columns have one unit (pixels).

    Parameters
    ----------
    power : float
        0 keeps z, -1/2 whitens in full.
    shrinks : bool, default=False
        Whether w is drawn to its mean as far as few rows say little about it [1]_, so
        that a row that the covariance has seen looks as a new one does.

    References
    ----------
    .. [1] Ledoit, Wolf (2004), A well-conditioned estimator for large-dimensional
       covariance matrices, Journal of Multivariate Analysis 88(2).
    """

    basis: Tensor
    variance: Tensor
    floor: Tensor

    def __init__(self, power: float, shrinks: bool = False) -> None:
        super().__init__()
        self.power = power
        self.shrinks = shrinks

    def fit(self, z: Tensor) -> Self:
        """Take the covariance of rows ``z``, float64 of shape (n, d)."""
        n, d = z.shape
        centered = z - z.mean(0)
        if n < d:
            singular, basis = torch.linalg.svd(centered, full_matrices=False)[1:]
            w, basis = singular.square() / n, basis.T
        else:
            w, basis = torch.linalg.eigh(centered.T @ centered / n)
        total = w.clamp(min=0).sum() / d
        floor = 0.05 * torch.where(total > 0, total, 1.0)
        self.register_buffer("basis", basis)
        self.register_buffer("variance", w.clamp(min=0))
        self.share = shrinkage(centered, w) if self.shrinks else 0.0
        self.register_buffer("floor", floor + self.share * total)
        self.n_rows = n
        return self

    def forward(self, z: Tensor, seen: Tensor) -> Tensor:
        """Return the turned rows; ``seen`` ones give back their share of variance.

        Parameters
        ----------
        z : Tensor of shape (n, d)
            Rows.
        seen : Tensor of shape (n,), bool
            Which rows are rows of `fit`. Where (v'z)^2 > w, w loses their (v'z)^2 / n
            before it is used; inside one sd the share is below 1 / n.

        Returns
        -------
        Tensor of shape (n, d)
            The turned rows.
        """
        along = z @ self.basis
        loud = seen[:, None] & (along.square() > self.variance)
        own = torch.where(loud, along.square() / self.n_rows, 0.0)
        w = (1 - self.share) * (self.variance - own).clamp(min=0)
        rest: Tensor = self.floor**self.power
        gain = (w + self.floor) ** self.power - rest
        return rest * z + (along * gain) @ self.basis.T


def shrinkage(centered: Tensor, variance: Tensor) -> float:
    """Return the share in [0, 1] of the mean variance in the best shrunk covariance.

    Parameters
    ----------
    centered : Tensor of shape (n, d)
        Rows of mean zero.
    variance : Tensor of shape (min(n, d),)
        Eigenvalues of their covariance, but for zeros.

    Returns
    -------
    float
        That of Ledoit and Wolf.
    """
    n, d = centered.shape
    squares = variance.square().sum()
    spread = squares - variance.sum().square() / d
    noise = (centered.square().sum(1).square().mean() - squares) / n
    if spread <= 0:
        return 0.0
    return float((noise / spread).clamp(0, 1))


class Ranked(nn.Module):
    """Normal scores: Phi^-1((midrank + 1/2) / (n + 1)), and asinh of the excess beyond.

    Beyond the training range by an excess e the value goes on as asinh(e / r), with
    r = max(IQR / 1.349, 0.1 sd). Each column is scaled to sd 1 on the training rows.
    Heavy tails and skew are gone; gaps between clusters shrink.
    """

    varies: Tensor
    ordered: Tensor
    ends: Tensor
    spread: Tensor
    scale: Tensor

    def fit(self, z: Tensor, varies: Tensor | None = None) -> Self:
        """Take the order statistics of rows ``z``, float64 of shape (n, d).

        Parameters
        ----------
        z : Tensor of shape (n, d)
            Rows.
        varies : Tensor of shape (d,), bool, default=None
            False for constant columns, which have no ranks: a value that moves by 1e-5
            must not go from the middle to the end. None finds them by their sd.

        Returns
        -------
        self : Ranked
            The fitted view.
        """
        ordered = z.sort(0).values
        n = len(z)
        iqr = ordered[round(0.75 * (n - 1))] - ordered[round(0.25 * (n - 1))]
        sd = z.std(0, correction=0)
        spread = torch.maximum(iqr / 1.349, 0.1 * sd)
        varies = sd > 0 if varies is None else varies
        self.register_buffer("varies", varies)
        self.register_buffer("ordered", ordered.T.contiguous())
        ends = torch.searchsorted(self.ordered, self.ordered, right=True)
        self.register_buffer("ends", ends)
        self.register_buffer("spread", torch.where(varies & (spread > 0), spread, 1.0))
        self.register_buffer("scale", torch.ones_like(sd))
        unseen = torch.zeros(n, dtype=torch.bool, device=z.device)
        scale = self(z, unseen)[0].std(0, correction=0)
        self.scale = torch.where(varies & (scale > 0), scale, 1.0)
        return self

    def forward(self, z: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of rows ``z``; ``seen`` ones are ranked among the others.

        Parameters
        ----------
        z : Tensor of shape (n, d)
            Rows.
        seen : Tensor of shape (n,), bool
            Which rows are rows of `fit`.

        Returns
        -------
        within : Tensor of shape (n, d)
            The normal scores, bounded.
        beyond : Tensor of shape (n, d)
            The asinh of the excess, 0 inside the training range.
        """
        columns, own = z.T.contiguous(), seen.long()
        below = torch.searchsorted(self.ordered, columns)
        nearest = below.clamp(max=self.ordered.shape[1] - 1)
        tied = self.ordered.gather(1, nearest) == columns
        up_to = torch.where(tied, self.ends.gather(1, nearest), below) - own
        n = self.ordered.shape[1] - own
        level = (0.5 * (below + up_to).to(z.dtype) + 0.5) / (n + 1)
        level = torch.where(self.varies[:, None], level, 0.5)
        low, second, last_but_one, high = self.ordered[:, [0, 1, -2, -1]].T
        low = torch.where(seen[:, None] & (z <= low), second, low)
        high = torch.where(seen[:, None] & (z >= high), last_but_one, high)
        excess = z - z.clamp(low, high)
        within = torch.special.ndtri(level.T) / self.scale
        return within.contiguous(), torch.asinh(excess / self.spread) / self.scale
