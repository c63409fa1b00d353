"""E(x) = -log sum_k w_k N(x; m_k, S_k): a mixture of Gaussians."""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Generator, Tensor

from skebm._torch import normal_like
from skebm.energies.energy import Energy

GATHERED_VALUES = 2**22
"""Values of the factors that `Gaussians.sample` copies at once."""


class Gaussians(Energy):
    """A normalised mixture of Gaussians.

    E(x) = -log sum_k w_k N(x; m_k, S_k) with log Z = 0, so exp(-E) is a density. It is
    the base that a network tilts, the noise of noise-contrastive estimation and the
    start of annealed estimates of log Z. `match` takes the parameters of a fitted
    mixture, for instance of ``sklearn.mixture.GaussianMixture``.

    Attributes
    ----------
    log_weights : Tensor of shape (K,)
        log w_k.
    means : Tensor of shape (K, d)
        Means m_k.
    factors : Tensor of shape (K, d, d)
        Lower Cholesky factors L_k of the covariances S_k.
    whiteners : Tensor of shape (d, K * d)
        L_k^-T side by side: |(x - m_k) L_k^-T|^2 is the squared Mahalanobis distance.

    References
    ----------
    .. [1] McLachlan, Peel (2000), Finite mixture models, Wiley.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Gaussians
    >>> two = Gaussians().match(
    ...     torch.tensor([0.8, 0.2]), torch.tensor([[-4.0], [4.0]]), torch.ones(2, 1, 1)
    ... )
    >>> [round(e, 3) for e in two(torch.tensor([[-4.0], [4.0]])).tolist()]
    [1.142, 2.528]
    """

    log_weights: Tensor
    means: Tensor
    factors: Tensor
    whiteners: Tensor
    _offsets: Tensor
    _constants: Tensor

    def __init__(self) -> None:
        super().__init__()

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Start at one standard normal."""
        identity = torch.eye(n_features)[None]
        return self.match(torch.ones(1), torch.zeros(1, n_features), identity)

    def match(self, weights: Tensor, means: Tensor, covariances: Tensor) -> Self:
        """Take weights, means and covariances.

        Parameters
        ----------
        weights : Tensor of shape (K,)
            Positive; they are normalised to sum to one.
        means : Tensor of shape (K, d)
            Means m_k.
        covariances : Tensor of shape (K, d, d)
            Positive definite covariances S_k.

        Returns
        -------
        self : Gaussians
            The mixture, in the dtype of ``means``.

        Raises
        ------
        torch.linalg.LinAlgError
            If a covariance is not positive definite.
        """
        k, d = means.shape
        factors = torch.linalg.cholesky(covariances)
        identity = torch.eye(d, dtype=means.dtype, device=means.device)
        inverse = torch.linalg.solve_triangular(
            factors, identity.expand_as(factors), upper=False
        )
        log_weights = (weights / weights.sum()).log()
        log_det = factors.diagonal(dim1=1, dim2=2).log().sum(1)
        constants = log_weights - log_det - 0.5 * d * math.log(2 * math.pi)
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("means", means.clone())
        self.register_buffer("factors", factors)
        self.register_buffer("whiteners", inverse.permute(2, 0, 1).reshape(d, k * d))
        self.register_buffer("_offsets", (inverse @ means[:, :, None])[:, :, 0])
        self.register_buffer("_constants", constants)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return -log sum_k w_k N(x; m_k, S_k), shape (n,)."""
        white = (x @ self.whiteners).view(len(x), *self._offsets.shape) - self._offsets
        joint = self._constants - 0.5 * white.square().sum(2)
        return -joint.logsumexp(1)

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return 0 at temperature 1; a closed form for one component, else None."""
        if temperature == 1.0:
            return 0.0
        if len(self.means) > 1:
            return None
        half = 0.5 * self.means.shape[1] * math.log(temperature)
        return half + (1 / temperature - 1) * float(self._constants[0])

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw independent rows.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness, on the energy's device.

        Returns
        -------
        Tensor of shape (n_samples, d)
            Rows, in no order.
        """
        weights = self.log_weights.exp()
        k = torch.multinomial(weights, n_samples, True, generator=generator)
        rows = self.means[k]
        noise = normal_like(rows, generator)[:, :, None]
        size = max(1, GATHERED_VALUES // self.factors[0].numel())
        for start in range(0, n_samples, size):
            part = slice(start, start + size)
            rows[part] += (self.factors[k[part]] @ noise[part])[:, :, 0]
        return rows

    def condition(self, columns: Sequence[int], values: Sequence[float]) -> "Gaussians":
        """Return the density of the other columns given some.

        Parameters
        ----------
        columns : sequence of int
            Places of the given columns, at least one and not all.
        values : sequence of float
            Their values.

        Returns
        -------
        Gaussians
            The conditional mixture over the free columns, in order; its weights are
            those of the components given the values.
        """
        free = [j for j in range(self.means.shape[1]) if j not in columns]
        covariances = self.factors @ self.factors.mT
        given = list(columns)
        root = torch.linalg.cholesky(covariances[:, given][:, :, given])
        point = self.means.new_tensor(list(values)) - self.means[:, given]
        across = torch.linalg.solve_triangular(
            root, covariances[:, given][:, :, free], upper=False
        )
        white = torch.linalg.solve_triangular(root, point[:, :, None], upper=False)
        log_weights = (
            self.log_weights
            - root.diagonal(dim1=1, dim2=2).log().sum(1)
            - 0.5 * white.square().sum((1, 2))
        )
        return Gaussians().match(
            log_weights.softmax(0).clamp_min(torch.finfo(point.dtype).tiny),
            self.means[:, free] + (across.mT @ white)[:, :, 0],
            covariances[:, free][:, :, free] - across.mT @ across,
        )
