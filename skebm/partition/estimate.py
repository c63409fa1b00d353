"""What an estimate of log Z is, who makes it, and the density that it starts from."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from skebm._params import Params
from skebm.energies import Energy, Quadratic

FEWEST_EFFECTIVE = 0.05
"""An effective sample size below this share of the draws is worth a warning."""


class LogPartition(NamedTuple):
    """An estimate of log Z = log of the integral of exp(-E(x)) dx, in nats.

    Attributes
    ----------
    value : float
        The estimate.
    interval : tuple of float
        95% interval; the error bound of a quadrature; one point where exact.
    ess : float
        Effective sample size: as many independent draws as the estimate is worth;
        infinite where nothing is drawn.
    method : str
        The value that made it, printed.
    """

    value: float
    interval: tuple[float, float]
    ess: float
    method: str


class Particles(NamedTuple):
    """Rows that stand for the density p(x) = exp(-E(x)) / Z.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        Rows.
    log_weights : Tensor of shape (n,)
        Logarithms of their weights, which sum to one.
    """

    x: Tensor
    log_weights: Tensor

    def resample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Return rows drawn by weight.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness, on the device of the rows.

        Returns
        -------
        Tensor of shape (n_samples, d)
            Rows of equal weight; one of large weight comes several times.
        """
        weights = self.log_weights.exp()
        return self.x[torch.multinomial(weights, n_samples, True, generator=generator)]


class Normalizer(Params, ABC):
    """A way to find log Z of an energy, given a density to start from.

    Attributes
    ----------
    most_columns : int or inf
        Columns that it can serve.

    References
    ----------
    .. [1] Gelman, Meng (1998), Simulating normalizing constants: from importance
       sampling to bridge sampling to path sampling, Statistical Science 13(2).
    """

    most_columns: ClassVar[float] = math.inf

    @abstractmethod
    def __call__(
        self, energy: Energy, *, base: Energy, generator: Generator
    ) -> LogPartition:
        """Return log Z of ``energy``.

        Parameters
        ----------
        energy : Energy
            E, built.
        base : Energy
            A density near that of the energy, with ``sample`` and ``log_partition``:
            `fit_base` of the rows, `Gaussians`.
        generator : Generator
            Source of randomness, on the base's device.

        Returns
        -------
        LogPartition
            Estimate, interval, effective sample size, method.
        """

    def check_columns(self, n_features: int) -> None:
        """Raise, before any training, where it cannot serve so many columns.

        Parameters
        ----------
        n_features : int
            Columns.

        Raises
        ------
        ValueError
            With what to use in its place.
        """
        if n_features > self.most_columns:
            raise ValueError(
                f"Got {n_features} columns, but {type(self).__name__} integrates at "
                f"most {self.most_columns}. Use ImportanceSampling(), SMC() or AIS()."
            )


def fit_base(x: Tensor, widening: float = 1.2) -> Quadratic:
    """Return the Gaussian of the rows, a little wider.

    Its covariance is widening * ((1 - a) S + a diag(S)), with S the covariance of the
    rows, a = d / (n + d) and no variance below 1e-6 of the mean variance. A density
    wider than the energy's keeps importance weights bounded.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows, n >= 2.
    widening : float, default=1.2
        Factor on the covariance, > 0.

    Returns
    -------
    Quadratic
        A built energy in double precision, on the device of the rows.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or a value is not finite.

    References
    ----------
    .. [1] Owen (2013), Monte Carlo theory, methods and examples, chapter 9.

    Examples
    --------
    >>> import torch
    >>> from skebm.partition import fit_base
    >>> base = fit_base(torch.tensor([[0.0], [2.0]]))
    >>> base.mean.item(), round(base.log_partition(), 3)
    (1.0, 1.357)
    """
    if len(x) < 2 or not x.isfinite().all():
        raise ValueError(
            f"Got {len(x)} rows, {int((~x.isfinite()).sum())} values not finite, but "
            "fit_base needs at least 2 rows of finite numbers."
        )
    x = x.detach().double()
    n, d = x.shape
    covariance = x.T.cov().reshape(d, d)
    variance = covariance.diagonal()
    floor = max(1e-6 * float(variance.mean()), 1e-12)
    shrunk = (1 - d / (n + d)) * covariance
    shrunk.diagonal().copy_(variance.clamp(min=floor))
    return Quadratic().match(x.mean(0), widening * shrunk)
