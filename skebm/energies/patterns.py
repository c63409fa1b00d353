"""p(x, y) = (1/n) sum_i r_iy N(x; x_i, h^2 I): stored patterns with labels."""

import math
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.convolutional import full_shape
from skebm.energies.energy import Energy

WIDENING = 2.0
"""Bandwidth over the one of highest left-out likelihood, which is narrow at the rim."""

LEAST_BANDWIDTH = 0.05
"""In units of the scaled columns: equal rows would make it zero."""

N_QUERIES = 1000
"""Stored patterns whose left-out likelihood decides on the bandwidth."""

N_UPDATES = 100
"""Most updates of the bandwidth."""

FARTHEST_CLASS = 1e4
"""Most nats by which a class is less likely than all."""

CHUNK_VALUES = 2**22
"""Squared distances at a time."""


class ClassPatterns(Energy):
    """Labelled patterns as a joint density of rows and labels.

    b_y(x) = log sum_i w_i r_iy N(x; x_i, h^2 I) with weights w_i that sum to one and
    r_iy = 1 where y is the label of pattern i, or a probability;
    E(x) = -log sum_y exp(b_y(x)) is a kernel density, log Z = 0.

    Parameters
    ----------
    bandwidth : float or None, default=None
        h > 0, in units of the scaled columns. None: twice the bandwidth at which
        patterns are likeliest under all the others.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of rows that are flat images:
        patterns are compared as `BlurredImages`, and log Z is not known.

    Attributes
    ----------
    patterns : Tensor of shape (n, d)
        x_i, as they are compared.
    log_weights : Tensor of shape (n, n_classes)
        log w_i r_iy.
    width : Tensor of shape ()
        h.

    References
    ----------
    .. [1] Parzen (1962), On estimation of a probability density function and mode,
       Annals of Mathematical Statistics 33(3).
    .. [2] Ramsauer et al. (2021), Hopfield networks is all you need, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ClassPatterns
    >>> rows, labels = torch.tensor([[0.0], [4.0]]), torch.eye(2)
    >>> energy = ClassPatterns(bandwidth=1.0).store(rows, labels)
    >>> energy.log_joint(torch.tensor([[0.0]])).round(decimals=2)
    tensor([[-1.6100, -9.6100]])
    """

    patterns: Tensor
    log_weights: Tensor
    total: Tensor
    width: Tensor

    def __init__(
        self,
        bandwidth: float | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.bandwidth = bandwidth
        self.image_shape = image_shape

    def store(self, x: Tensor, shares: Tensor, weights: Tensor | None = None) -> Self:
        """Keep the rows of ``x`` as patterns.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Patterns, at least one.
        shares : Tensor of shape (n, n_classes)
            r_iy >= 0, rows sum to one.
        weights : Tensor of shape (n,) or None, default=None
            Weights >= 0, not all zero; None weighs all alike.

        Returns
        -------
        self : ClassPatterns
            The energy with its patterns.

        Raises
        ------
        ValueError
            If ``bandwidth`` is not above 0.
        """
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise ValueError(
                f"Got bandwidth={self.bandwidth!r}, but expected a number > 0 or None."
            )
        self.view = self._view(x.shape[1])
        self.register_buffer("patterns", self.view(x[:0]))
        self.register_buffer("log_weights", shares[:0])
        self.register_buffer("total", x.new_zeros(()))
        return self.extend(x, shares, weights)

    def extend(self, x: Tensor, shares: Tensor, weights: Tensor | None = None) -> Self:
        """Keep more rows as patterns.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Patterns, at least one.
        shares : Tensor of shape (n, n_classes)
            r_iy >= 0, rows sum to one.
        weights : Tensor of shape (n,) or None, default=None
            Weights >= 0, in units of those of `store`.

        Returns
        -------
        self : ClassPatterns
            The energy with all of its patterns.
        """
        w = torch.ones_like(x[:, 0]) if weights is None else weights
        self.patterns = torch.cat([self.patterns, self.view(x)])
        known = self.log_weights + self.total.log()
        joint = torch.cat([known, (w[:, None] * shares).log()])
        self.total = self.total + w.sum()
        self.log_weights = joint - self.total.log()
        given = self.bandwidth
        width = self._likeliest_width() if given is None else x.new_tensor(given)
        self.register_buffer("width", width)
        return self

    def log_joint(self, x: Tensor) -> Tensor:
        """Return b_y(x) = log p(x, y).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, n_classes)
            In nats; at most 10,000 below log p(x).
        """
        seen = self.view(x.to(self.patterns.dtype))
        return self._log_joint(squared_distances(seen, self.patterns))

    def left_out(self, start: int = 0) -> Tensor:
        """Return b_y of patterns, each without its own copy.

        Parameters
        ----------
        start : int, default=0
            Place of the first of them.

        Returns
        -------
        Tensor of shape (n - start, n_classes)
            In nats.
        """
        n, device = len(self.patterns), self.patterns.device
        places = torch.arange(start, n, device=device)
        size = max(1, CHUNK_VALUES // len(self.patterns))
        parts = [
            self._log_joint(self._to_others(own)) for own in torch.split(places, size)
        ]
        return torch.cat(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return E(x) = -log sum_y exp(b_y(x)), shape (n,)."""
        return -self.log_joint(x).logsumexp(1)

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return 0 at T = 1, where rows are compared as they are; else None."""
        known = self.image_shape is None and temperature == 1.0
        return 0.0 if known else None

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw rows of p(x), the labels summed out.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness, on the patterns' device.

        Returns
        -------
        Tensor of shape (n_samples, d)
            A pattern at random plus Gaussian noise of standard deviation h.

        Raises
        ------
        ValueError
            If patterns are compared as images: p(x) has no known draws.
        """
        if self.image_shape is not None:
            raise ValueError(
                "ClassPatterns with image_shape compares blurred images and cannot "
                "draw rows. Leave image_shape out to draw."
            )
        weights = self.log_weights.logsumexp(1).exp()
        which = torch.multinomial(weights, n_samples, True, generator=generator)
        noise = torch.empty_like(self.patterns[which]).normal_(generator=generator)
        return self.patterns[which] + self.width * noise

    def _log_joint(self, distances: Tensor) -> Tensor:
        """Return b_y from squared distances to the patterns, shape (n, n_classes)."""
        d = self.patterns.shape[1]
        constant = 0.5 * d * torch.log(2 * math.pi * self.width.square())
        logits = distances / (-2 * self.width.square())
        by_class = [(logits + log_w).logsumexp(1) for log_w in self.log_weights.T]
        b = torch.stack(by_class, 1)
        return torch.maximum(b, b.logsumexp(1, True) - FARTHEST_CLASS) - constant

    def _to_others(self, own: Tensor) -> Tensor:
        """Return squared distances from patterns to all, their own copies infinite."""
        distances = squared_distances(self.patterns[own], self.patterns)
        return distances.scatter_(1, own[:, None], torch.inf)

    def _likeliest_width(self) -> Tensor:
        """Return twice the h of highest left-out likelihood, by its EM update.

        h^2 <- (1 / (n d)) sum_ij p(j given i) |x_i - x_j|^2.
        """
        n, d = self.patterns.shape
        own = torch.linspace(0, n - 1, min(n, N_QUERIES)).long()
        own = own.to(self.patterns.device)
        distances = self._to_others(own)
        log_w = self.log_weights.logsumexp(1)
        finite = torch.where(distances.isinf(), 0.0, distances)
        floor = finite.new_tensor(LEAST_BANDWIDTH / WIDENING).square()
        variance = (finite.sum() / (max(1, n - 1) * len(own) * d)).maximum(floor)
        for _ in range(N_UPDATES):
            p = (distances / (-2 * variance) + log_w).softmax(1)
            last, variance = variance, ((p * finite).sum(1).mean() / d).maximum(floor)
            if (variance / last).log().abs() < 1e-4:
                break
        return WIDENING * variance.sqrt()

    def _view(self, n_features: int) -> nn.Module:
        """Return what rows are compared as."""
        if self.image_shape is None:
            return nn.Identity()
        return BlurredImages(full_shape(self.image_shape, n_features))


class BlurredImages(nn.Module):
    """Images blurred by a 28th of their height, halved from 20 lines on, unit length.

    The least value of an image is its zero.
    What is left tells shapes apart where pixels tell strokes: small shifts and the
    thickness of a line move a row less than another shape does.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width).

    References
    ----------
    .. [1] Simard, LeCun, Denker (1993), Efficient pattern recognition using a new
       transformation distance, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies.patterns import BlurredImages
    >>> BlurredImages((1, 28, 28))(torch.ones(2, 784)).shape
    torch.Size([2, 196])
    """

    kernel: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        sigma = shape[1] / 28
        reach = max(1, math.ceil(3 * sigma))
        places = torch.arange(-reach, reach + 1)
        kernel = torch.exp(-0.5 * (places / sigma).square())
        self.register_buffer("kernel", kernel / kernel.sum())

    def forward(self, x: Tensor) -> Tensor:
        """Return the images, shape (n, values)."""
        channels, height, width = self.shape
        images = (x - x.amin(1, keepdim=True)).view(-1, 1, height, width)
        k = self.kernel.to(x)
        reach = len(k) // 2
        padded = nn.functional.pad(images, (reach, reach, reach, reach))
        images = nn.functional.conv2d(padded, k.view(1, 1, -1, 1))
        images = nn.functional.conv2d(images, k.view(1, 1, 1, -1))
        if min(height, width) >= 20:
            images = nn.functional.avg_pool2d(images, 2)
        flat = images.view(len(x), channels, *images.shape[2:]).flatten(1)
        unit: Tensor = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return unit


def squared_distances(x: Tensor, patterns: Tensor) -> Tensor:
    """Return |x_i - p_j|^2, shape (n, m), from one matrix product.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.
    patterns : Tensor of shape (m, d)
        Patterns.

    Returns
    -------
    Tensor of shape (n, m)
        Not below 0.
    """
    squares = patterns.square().sum(1) + x.square().sum(1, keepdim=True)
    return torch.addmm(squares, x, patterns.T, alpha=-2.0).clamp(min=0.0)
