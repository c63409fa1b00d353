"""E(x): the energy as a value and a module; p(x) = exp(-E(x)) / Z."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from skebm._params import Params


class Energy(Params, nn.Module, ABC):
    """A scalar energy per row; low energy means typical.

    p(x) = exp(-E(x) / T) / Z_T at temperature T, with
    Z_T = integral of exp(-E(x) / T) dx.

    The constructor stores hyperparameters only, so an energy can be printed, cloned
    and searched over before it has any weights. Energies add (a product of experts)
    and scale (a temperature): ``a + b``, ``0.5 * a``, ``-a``.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.

    Examples
    --------
    >>> from skebm.energies import Energy
    >>> class Bowl(Energy):
    ...     def forward(self, x):
    ...         return x.square().sum(1).add(1).sqrt()
    >>> 2 * Bowl()
    Scaled(part=Bowl(), factor=2.0)
    """

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the parameters for rows of ``n_features`` columns.

        Parameters
        ----------
        n_features : int
            Number of columns, >= 1.
        generator : Generator or None, default=None
            Source of the initial weights, where there are random ones.

        Returns
        -------
        self : Energy
            The built energy.
        """
        return self

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return E(x) of shape (n,) for rows x of shape (n, d)."""

    def grad(self, x: Tensor) -> Tensor:
        """Return dE/dx.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, d)
            The gradient of each row's energy.
        """
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self(leaf).sum(), leaf)
        return gradient

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return log Z_T where it is known in closed form, else None.

        Parameters
        ----------
        temperature : float, default=1.0
            T > 0.

        Returns
        -------
        float or None
            log of the integral of exp(-E(x) / T) dx, in nats.
        """
        return None

    def __add__(self, other: "Energy") -> "Sum":
        """Add two energies: the product of their densities."""
        return Sum(self, other) if isinstance(other, Energy) else NotImplemented

    def __mul__(self, factor: float) -> "Scaled":
        """Multiply by a number: the density at temperature 1 / factor."""
        is_number = isinstance(factor, int | float)
        return Scaled(self, float(factor)) if is_number else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> "Scaled":
        """Swap typical and atypical."""
        return Scaled(self, -1.0)


class Sum(Energy):
    """E(x) = E_left(x) + E_right(x), a product of experts.

    Parameters
    ----------
    left, right : Energy
        The two experts over the same columns.

    References
    ----------
    .. [1] Hinton (2002), Training products of experts by minimizing contrastive
       divergence, Neural Computation 14(8).

    Examples
    --------
    >>> from skebm.energies import Quadratic
    >>> Quadratic() + Quadratic()
    Sum(left=Quadratic(), right=Quadratic())
    """

    def __init__(self, left: Energy, right: Energy) -> None:
        super().__init__()
        self.left = left
        self.right = right

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build both experts."""
        self.left.build(n_features, generator=generator)
        self.right.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the two energies, shape (n,)."""
        total: Tensor = self.left(x) + self.right(x)
        return total


class Scaled(Energy):
    """E(x) = factor * E_part(x); p at temperature 1 / factor.

    Parameters
    ----------
    part : Energy
        The energy to scale.
    factor : float
        Inverse temperature; a negative factor swaps typical and atypical.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.

    Examples
    --------
    >>> from skebm.energies import Quadratic
    >>> 0.5 * Quadratic()
    Scaled(part=Quadratic(), factor=0.5)
    """

    def __init__(self, part: Energy, factor: float) -> None:
        super().__init__()
        self.part = part
        self.factor = factor

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the part."""
        self.part.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled energy, shape (n,)."""
        scaled: Tensor = self.factor * self.part(x)
        return scaled

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return the part's log Z at temperature / factor; None if factor <= 0."""
        if self.factor <= 0:
            return None
        return self.part.log_partition(temperature / self.factor)


class Frozen(Energy):
    """E(x) = E_part(x) with fixed weights that cloning keeps.

    Cloning an energy drops its weights, as cloning an estimator does. A fitted energy
    that is part of a new model enters as ``Frozen(energy)``; clone copies it whole and
    training leaves it alone.

    Parameters
    ----------
    part : Energy
        A built energy; its weights stop learning.

    References
    ----------
    .. [1] scikit-learn developers, ``sklearn.frozen.FrozenEstimator``, the same idea
       for estimators.

    Examples
    --------
    >>> import torch
    >>> from sklearn.base import clone
    >>> from skebm.energies import Frozen, Quadratic
    >>> frozen = Frozen(Quadratic().build(2))
    >>> clone(frozen)(torch.ones(1, 2)).item()
    1.0
    """

    def __init__(self, part: Energy) -> None:
        super().__init__()
        self.part = part.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the part's energy, shape (n,)."""
        e: Tensor = self.part(x)
        return e

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return the part's log Z."""
        return self.part.log_partition(temperature)

    def __sklearn_clone__(self) -> "Frozen":
        """Copy whole, weights included."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        """Copy the part with its tensors."""
        return Frozen(copy.deepcopy(self.part, memo))
