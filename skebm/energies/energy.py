"""E(x): the energy as a value and a module; p(x) = exp(-E(x)) / Z."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from skebm._params import Params
from skebm.energies.form import QuadraticForm


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
        return self.value_and_grad(x)[1]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) and dE/dx from one evaluation, both detached.

        An energy whose gradient has a cheap closed form overrides this method alone.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        e : Tensor of shape (n,)
            Energies.
        gradient : Tensor of shape (n, d)
            The gradient of each row's energy.
        """
        if torch.is_inference_mode_enabled() or x.is_inference():
            # Autograd refuses tensors that were made in inference mode.
            with torch.inference_mode(False):
                return self.value_and_grad(x.clone())
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            e = self(leaf)
            if not e.requires_grad:
                return e, torch.zeros_like(x)
            (gradient,) = torch.autograd.grad(
                e, leaf, torch.ones_like(e), materialize_grads=True
            )
        return e.detach(), gradient

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

        Raises
        ------
        NotNormalizableError
            If E is quadratic and exp(-E(x) / T) is known to have no finite integral.
        """
        form = self.as_quadratic()
        return None if form is None else form.log_partition(temperature)

    def as_quadratic(self) -> QuadraticForm | None:
        """Return E as a quadratic polynomial of x where it is one, else None.

        Weighted sums of quadratic energies are quadratic, so products, differences,
        interpolation and guidance of Gaussians keep a closed-form log Z.

        Returns
        -------
        QuadraticForm or None
            The polynomial, constants included, as of the present weights.
        """
        return None

    def __add__(self, other: "Energy") -> "Sum":
        """Add two energies: the product of their densities."""
        return Sum(self, other) if isinstance(other, Energy) else NotImplemented

    def __sub__(self, other: "Energy") -> "Sum":
        """Subtract an energy: divide by its density."""
        return Sum(self, -other) if isinstance(other, Energy) else NotImplemented

    def __mul__(self, factor: float) -> "Scaled":
        """Multiply by a number: the density at temperature 1 / factor."""
        is_number = isinstance(factor, int | float)
        return Scaled(self, float(factor)) if is_number else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> "Scaled":
        """Swap typical and atypical."""
        return Scaled(self, -1.0)


class Combination(Energy):
    """E(x) = sum_i c_i E_i(x); a row that a part excludes (+inf) stays excluded."""

    @abstractmethod
    def _terms(self) -> tuple[tuple[float, Energy], ...]:
        """Return the pairs (c_i, E_i), at least one."""

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build every part."""
        for part in self.children():
            if isinstance(part, Energy):
                part.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the energies, shape (n,)."""
        return _total([_multiple(part(x), c) for c, part in self._terms()])

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted sums of the parts' energies and gradients."""
        pairs = [(c, *part.value_and_grad(x)) for c, part in self._terms()]
        e = _total([_multiple(e, c) for c, e, _ in pairs])
        return e, _total([c * gradient for c, _, gradient in pairs])

    def as_quadratic(self) -> QuadraticForm | None:
        """Return the weighted sum of the parts' polynomials; None if one has none."""
        total = None
        for c, part in self._terms():
            form = part.as_quadratic()
            if form is None:
                return None
            total = form.times(c) if total is None else total.plus(form.times(c))
        return total


def _total(tensors: list[Tensor]) -> Tensor:
    """Return the sum of at least one tensor."""
    return sum(tensors[1:], start=tensors[0])


def _multiple(e: Tensor, c: float) -> Tensor:
    """Return c * e, with +inf where e is +inf, whatever the sign of c."""
    return c * e if c > 0 else torch.where(e == torch.inf, e, c * e)


class Sum(Combination):
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

    def _terms(self) -> tuple[tuple[float, Energy], ...]:
        """Return both experts."""
        return (1.0, self.left), (1.0, self.right)


class Scaled(Combination):
    """E(x) = factor * E_part(x); p at temperature 1 / factor.

    Parameters
    ----------
    part : Energy
        The energy to scale.
    factor : float
        Inverse temperature; a negative factor swaps typical and atypical, but rows
        outside a hard constraint stay outside.

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

    def _terms(self) -> tuple[tuple[float, Energy], ...]:
        """Return the part with its factor."""
        return ((self.factor, self.part),)

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return the part's log Z at temperature / factor, where factor > 0."""
        if self.factor > 0:
            return self.part.log_partition(temperature / self.factor)
        return super().log_partition(temperature)


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

    def as_quadratic(self) -> QuadraticForm | None:
        """Return the part's polynomial."""
        return self.part.as_quadratic()

    def __sklearn_clone__(self) -> "Frozen":
        """Copy whole, weights included."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        """Copy the part with its tensors."""
        return Frozen(copy.deepcopy(self.part, memo))
