"""Units of a visible layer: independent of each other given their fields."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._params import Params
from skebm._torch import bernoulli, normal_like, probabilities


class Units(Params, nn.Module, ABC):
    """A layer of units v that meets the other layers through a field f.

    p(v | f) = exp(-A(v) + phi(v)' f - Psi(f)). A and Psi are sums over the columns of
    v; the statistics phi(v) may be wider than v. A field is what a bias and the other
    layer add up to, and one set of units differs from another by A and phi alone.

    References
    ----------
    .. [1] Welling, Rosen-Zvi, Hinton (2004), Exponential family harmoniums with an
       application to information retrieval, NeurIPS.
    """

    n_features: int
    n_statistics: int

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the layer for rows of ``n_features`` columns.

        Parameters
        ----------
        n_features : int
            Columns of v, >= 1.
        generator : Generator or None, default=None
            Unused: units have no random parameters.

        Returns
        -------
        self : Units
            The built layer.
        """
        self.n_features = self.n_statistics = n_features
        return self

    @abstractmethod
    def statistics(self, v: Tensor) -> Tensor:
        """Return phi(v), shape (n, n_statistics).

        Parameters
        ----------
        v : Tensor
            Rows of the layer.
        """

    @abstractmethod
    def self_energies(self, v: Tensor) -> Tensor:
        """Return A of every column, shape (n, n_features).

        Parameters
        ----------
        v : Tensor
            Rows of the layer.
        """

    @abstractmethod
    def log_normalizers(self, fields: Tensor) -> Tensor:
        """Return Psi of every column, shape (n, n_features).

        Parameters
        ----------
        fields : Tensor
            Fields of the layer.
        """

    @abstractmethod
    def sample(
        self, fields: Tensor, *, temperature: float | Tensor = 1.0, generator: Generator
    ) -> Tensor:
        """Return draws of v given the fields, shape (n, n_features).

        Parameters
        ----------
        fields : Tensor
            Fields of the layer.
        temperature : float or Tensor
            T > 0.
        generator : Generator
            Source of randomness, on the device of the rows.
        """

    @abstractmethod
    def mean(self, fields: Tensor) -> Tensor:
        """Return the mean of phi(v) given the fields, shape (n, n_statistics).

        Parameters
        ----------
        fields : Tensor
            Fields of the layer.
        """

    @abstractmethod
    def guess(self, mean: Tensor) -> Tensor:
        """Return the best guess at v where phi(v) has this mean, (n, n_features).

        Parameters
        ----------
        mean : Tensor
            Means of the statistics.
        """

    def predict(self, fields: Tensor) -> Tensor:
        """Return the best guess at v given the fields, shape (n, n_features).

        Parameters
        ----------
        fields : Tensor
            Fields of the layer.

        Returns
        -------
        Tensor
            The best guess at v given the fields, shape (n, n_features).
        """
        return self.guess(self.mean(fields))

    @abstractmethod
    def base_fields(self, v: Tensor) -> Tensor:
        """Return the fields of a layer that stands alone, fitted to rows.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows; NaN entries are left out.

        Returns
        -------
        Tensor of shape (n_statistics,)
            Fields under which the mean of phi is that of the rows, a little smoothed.
        """

    def match(self, v: Tensor) -> Self:
        """Fit the layer's own parameters, where it has some, to rows.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows; NaN entries are left out.

        Returns
        -------
        self : Units
            With `base_fields` the best model of independent columns.
        """
        return self

    def gradients(self, v: Tensor, fields: Tensor) -> list[Tensor]:
        """Return the mean gradients of -A(v) + phi(v)' f in the layer's parameters.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.
        fields : Tensor of shape (n, n_statistics)
            Their fields.

        Returns
        -------
        list of Tensor
            One per parameter of the layer, in order.
        """
        return []

    def states(self) -> Sequence[int] | None:
        """Return the number of values of every column, None where they are infinite."""
        return None

    def over_statistics(self, columns: Tensor) -> Tensor:
        """Repeat what is said of the columns (n, d) for their statistics.

        Parameters
        ----------
        columns : Tensor of shape (n, n_features)
            One value per column of v, such as whether it is missing.

        Returns
        -------
        Tensor of shape (n, n_statistics)
            The same for every column of phi(v).
        """
        return columns


class BernoulliUnits(Units):
    """Bits: A = 0, phi(v) = v, p(v = 1 | f) = 1 / (1 + exp(-f)).

    Values between 0 and 1 are taken as they are, for probabilities of bits.

    References
    ----------
    .. [1] Smolensky (1986), Information processing in dynamical systems: foundations
       of harmony theory, Parallel Distributed Processing 1, MIT Press.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import BernoulliUnits
    >>> BernoulliUnits().build(1).mean(torch.zeros(1, 1)).item()
    0.5
    """

    def statistics(self, v: Tensor) -> Tensor:
        """Return v, shape (n, d)."""
        return v

    def self_energies(self, v: Tensor) -> Tensor:
        """Return zeros, shape (n, d)."""
        return torch.zeros_like(v)

    def log_normalizers(self, fields: Tensor) -> Tensor:
        """Return log(1 + exp(f)), shape (n, d)."""
        return nn.functional.softplus(fields)

    def sample(
        self, fields: Tensor, *, temperature: float | Tensor = 1.0, generator: Generator
    ) -> Tensor:
        """Return bits, shape (n, d)."""
        if not isinstance(temperature, float) or temperature != 1.0:
            fields = fields / temperature
        return bernoulli(probabilities(fields.clone()), generator)

    def mean(self, fields: Tensor) -> Tensor:
        """Return the probabilities of a one, shape (n, d)."""
        return fields.sigmoid()

    def guess(self, mean: Tensor) -> Tensor:
        """Return the probabilities of a one, shape (n, d)."""
        return mean

    def base_fields(self, v: Tensor) -> Tensor:
        """Return the log-odds of the columns, shape (d,), half a row added to each."""
        known = ~v.isnan()
        ones = v.nan_to_num(0.0).double().sum(0)
        return torch.logit((ones + 0.5) / (known.sum(0) + 1.0)).to(v)

    def states(self) -> Sequence[int]:
        """Return 2 for every column."""
        return [2] * self.n_features


class GaussianUnits(Units):
    """Real numbers: A = v^2 / (2 s^2), phi(v) = v / s^2, v | f ~ N(f, s^2).

    With the variance s^2 of every column learned in the energy as in [1]_, the field is
    the conditional mean.

    Parameters
    ----------
    least_variance : float, default=0.0
        A floor, >= 0, so that a column that hardly varies given the hidden bits has a
        bounded density: s^2 = least_variance + exp(log_variance).

    Attributes
    ----------
    log_variance : Parameter of shape (n_features,)
        log(s^2 - least_variance); zeros after `build`.

    References
    ----------
    .. [1] Cho, Ilin, Raiko (2011), Improved learning of Gaussian-Bernoulli restricted
       Boltzmann machines, ICANN.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import GaussianUnits
    >>> GaussianUnits().build(1).mean(torch.tensor([[2.0]])).item()
    2.0
    """

    log_variance: nn.Parameter

    def __init__(self, least_variance: float = 0.0) -> None:
        super().__init__()
        self.least_variance = least_variance

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the variances, all 1."""
        super().build(n_features, generator=generator)
        self.log_variance = nn.Parameter(torch.zeros(n_features))
        return self

    @property
    def variance(self) -> Tensor:
        """s^2 of every column, shape (d,)."""
        return self.log_variance.exp() + self.least_variance

    def statistics(self, v: Tensor) -> Tensor:
        """Return v / s^2, shape (n, d)."""
        return v / self.variance

    def self_energies(self, v: Tensor) -> Tensor:
        """Return v^2 / (2 s^2), shape (n, d)."""
        return 0.5 * v.square() / self.variance

    def log_normalizers(self, fields: Tensor) -> Tensor:
        """Return f^2 / (2 s^2) + log(2 pi s^2) / 2, shape (n, d)."""
        variance = self.variance
        half = 0.5 * (variance.log() + math.log(2 * math.pi))
        return 0.5 * fields.square() / variance + half

    def sample(
        self, fields: Tensor, *, temperature: float | Tensor = 1.0, generator: Generator
    ) -> Tensor:
        """Return normal draws around the fields, shape (n, d)."""
        sd = self.variance.sqrt() * temperature**0.5
        return fields + sd * normal_like(fields, generator)

    def mean(self, fields: Tensor) -> Tensor:
        """Return f / s^2, shape (n, d)."""
        return self.statistics(fields)

    def guess(self, mean: Tensor) -> Tensor:
        """Return the mean of v, shape (n, d)."""
        return mean * self.variance

    def base_fields(self, v: Tensor) -> Tensor:
        """Return the means of the columns, shape (d,)."""
        return v.double().nanmean(0).to(v)

    def match(self, v: Tensor) -> Self:
        """Set the variances to those of the columns, or to the floor."""
        wide = v.double()
        variance = (wide - wide.nanmean(0)).square().nanmean(0)
        with torch.no_grad():
            above = (variance - self.least_variance).clamp(min=1e-12)
            self.log_variance.copy_(above.log())
        return self

    def gradients(self, v: Tensor, fields: Tensor) -> list[Tensor]:
        """Return that of log_variance: (v^2 / 2 - v f) / s^2 by d log s^2, (d,)."""
        variance, own = self.variance.detach(), self.log_variance.detach().exp()
        return [(0.5 * v.square() - v * fields).mean(0) * own / variance.square()]
