"""E(x) = -(1/beta) log sum_j exp(-beta/2 |x - xi_j|^2): stored patterns."""

import math
from typing import Self

import torch
from torch import Generator, Tensor

from skebm.energies.energy import Energy


class Memory(Energy):
    """The modern Hopfield energy of a set of stored patterns.

    E(x) = -(1/beta) log sum_j exp(-beta/2 |x - xi_j|^2).

    At temperature T = 1/beta, exp(-beta E) is a sum of Gaussians of variance 1/beta,
    so p is a kernel density and log Z = log n + (d/2) log(2 pi / beta) is exact; at
    other temperatures Z is not known in closed form. The minima are the attractors of
    the update x <- sum_j softmax_j(-beta/2 |x - xi_j|^2) xi_j.

    Parameters
    ----------
    beta : float, default=1.0
        Inverse temperature, in 1 / squared units of x. Must be > 0. A large beta
        keeps patterns apart, a small one merges them.

    Attributes
    ----------
    patterns : Tensor of shape (n_patterns, d)
        Stored patterns xi.

    References
    ----------
    .. [1] Ramsauer et al. (2021), Hopfield networks is all you need, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Memory
    >>> energy = Memory(beta=2.0).store(torch.zeros(1, 3))
    >>> energy(torch.tensor([[1.0, 0.0, 0.0]])).item()
    0.5
    """

    patterns: Tensor

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def store(self, x: Tensor) -> Self:
        """Keep the rows of ``x`` as patterns.

        Parameters
        ----------
        x : Tensor of shape (n_patterns, d)
            Patterns, at least one.

        Returns
        -------
        self : Memory
            The energy with its patterns.
        """
        self.register_buffer("patterns", x)
        return self

    def _log_weights(self, x: Tensor) -> Tensor:
        """Return -beta/2 |x - xi_j|^2, shape (n, n_patterns)."""
        mode = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(x, self.patterns, compute_mode=mode)
        return -0.5 * self.beta * distance.square()

    def forward(self, x: Tensor) -> Tensor:
        """Return the energy, shape (n,)."""
        return -self._log_weights(x).logsumexp(1) / self.beta

    def grad(self, x: Tensor) -> Tensor:
        """Return x - recall(x), the gradient in closed form, shape (n, d)."""
        return x - self.recall(x)

    def recall(self, x: Tensor) -> Tensor:
        """Return one Hopfield update: the softmax average of the patterns.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Queries.

        Returns
        -------
        Tensor of shape (n, d)
            sum_j softmax_j(-beta/2 |x - xi_j|^2) xi_j.
        """
        return self._log_weights(x).softmax(1) @ self.patterns

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return log n + (d/2) log(2 pi / beta) at T = 1/beta, else None."""
        if not math.isclose(self.beta * temperature, 1.0):
            return None
        n, d = self.patterns.shape
        return math.log(n) + 0.5 * d * math.log(2 * math.pi / self.beta)

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw exact samples of the density at temperature 1/beta.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness, on the patterns' device.

        Returns
        -------
        Tensor of shape (n_samples, d)
            A pattern at random plus Gaussian noise of variance 1/beta.
        """
        n, d = self.patterns.shape
        device = self.patterns.device
        rows = torch.randint(n, (n_samples,), generator=generator, device=device)
        noise = self.patterns.new_empty(n_samples, d).normal_(generator=generator)
        return self.patterns[rows] + noise / math.sqrt(self.beta)
