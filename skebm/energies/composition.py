"""Energies made of energies: mixtures, interpolation and guidance."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Combination, Energy
from skebm.energies.tilted import SampledEnergy


class Mixture(Energy):
    """A mixture of densities: a row is typical if one of the parts says so.

    E(x) = -log sum_k w_k exp(-E_k(x)) / Z_k, so p(x) = sum_k w_k p_k(x) and log Z = 0.
    Without the Z_k a part with a large normaliser would take the others' weight. The
    parts do not learn: log Z_k would change with their weights.

    Parameters
    ----------
    parts : tuple of Energy
        Built energies over the same columns, at least one.
    weights : tuple of float or None, default=None
        Positive w_k, one per part; they are normalised to sum to one. None gives equal
        weights.
    log_partitions : tuple of float or None, default=None
        log Z_k, one per part, for instance from an estimate; an entry of None asks the
        part itself. None asks every part. Given numbers are taken at their word.

    References
    ----------
    .. [1] Du, Li, Mordatch (2020), Compositional visual generation with energy based
       models, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Mixture, Quadratic
    >>> narrow, wide = Quadratic().build(1), Quadratic().build(1)
    >>> mixed = Mixture((narrow, 0.01 * wide), weights=(0.7, 0.3))
    >>> round((-mixed(torch.zeros(1, 1))).exp().item(), 4)  # (0.7 + 0.03) / sqrt(2 pi)
    0.2912
    """

    def __init__(
        self,
        parts: tuple[Energy, ...],
        weights: tuple[float, ...] | None = None,
        log_partitions: tuple[float | None, ...] | None = None,
    ) -> None:
        super().__init__()
        self.parts = parts
        self.weights = weights
        self.log_partitions = log_partitions

    def __setattr__(self, name: str, value: Any) -> None:
        """Register the parts as modules whenever they are set."""
        super().__setattr__(name, value)
        if name == "parts":
            self._members = nn.ModuleList(value).requires_grad_(False)

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build every part, with weights that do not learn."""
        for part in self.parts:
            part.build(n_features, generator=generator)
        self._members.requires_grad_(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return -log sum_k w_k exp(-E_k(x)) / Z_k, shape (n,)."""
        return _mixed(self._joint([part(x) for part in self.parts]))[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) and the parts' gradients weighted by p(k given x)."""
        pairs = [part.value_and_grad(x) for part in self.parts]
        e, shares = _mixed(self._joint([e for e, _ in pairs]))
        gradients = torch.stack([gradient for _, gradient in pairs])
        return e, (shares[:, :, None] * gradients).sum(0)

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return 0 at temperature 1, else None."""
        return 0.0 if temperature == 1.0 else None

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw independent rows.

        Parameters
        ----------
        n_samples : int
            Number of rows, >= 1.
        generator : Generator
            Source of randomness, on the energy's device.

        Returns
        -------
        Tensor of shape (n_samples, d)
            Rows, in no order.

        Raises
        ------
        TypeError
            If a part cannot be drawn from.
        """
        device = generator.device
        weights = torch.tensor(self._shares(), device=device)
        k = torch.multinomial(weights, n_samples, True, generator=generator)
        counts = k.bincount(minlength=len(self.parts)).tolist()
        drawn = [
            _draw(part, count, generator)
            for part, count in zip(self.parts, counts, strict=True)
        ]
        return torch.cat(drawn)[k.argsort().argsort()]

    def _joint(self, energies: list[Tensor]) -> Tensor:
        """Return log w_k exp(-E_k(x)) / Z_k, shape (K, n), from K energies (n,)."""
        log_weights = self._log_weights()
        e = torch.stack(energies)
        return e.new_tensor(log_weights)[:, None] - e

    def _shares(self) -> list[float]:
        """Return the weights, one per part, with sum one."""
        given = (1.0,) * len(self.parts) if self.weights is None else self.weights
        self._refuse_length("weights", given)
        if not all(0 < weight < math.inf for weight in given):
            raise ValueError(
                f"Got weights={given!r}, but expected positive numbers. Leave out the "
                "parts that have no weight."
            )
        return [weight / sum(given) for weight in given]

    def _log_weights(self) -> list[float]:
        """Return log w_k - log Z_k."""
        given = self.log_partitions
        given = (None,) * len(self.parts) if given is None else given
        self._refuse_length("log_partitions", given)
        return [
            math.log(share) - (_known_log_partition(part) if value is None else value)
            for share, part, value in zip(
                self._shares(), self.parts, given, strict=True
            )
        ]

    def _refuse_length(self, name: str, values: Sequence[float | None]) -> None:
        """Raise if there is not one value per part."""
        if len(values) != len(self.parts) or not self.parts:
            raise ValueError(
                f"Got {len(self.parts)} parts and {name}={values!r}, but expected one "
                "value per part and at least one part."
            )


class Interpolated(Combination):
    """A morph between two energies.

    E(x) = (1 - t) E_left(x) + t E_right(x), the geometric path between the densities.
    Between two Gaussians every point of the path is a Gaussian of precision
    P_t = (1 - t) P_0 + t P_1 and mean P_t^-1 ((1 - t) P_0 m_0 + t P_1 m_1).

    Parameters
    ----------
    left, right : Energy
        The ends, over the same columns.
    t : float
        Place on the path, in [0, 1]: 0 is ``left``, 1 is ``right``.

    References
    ----------
    .. [1] Gelman, Meng (1998), Simulating normalizing constants: from importance
       sampling to bridge sampling to path sampling, Statistical Science 13(2).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Interpolated, Quadratic
    >>> ends = Quadratic().build(1), 4 * Quadratic().build(1)
    >>> Interpolated(*ends, t=0.5)(torch.full((1, 1), 2.0)).item()
    5.0
    """

    def __init__(self, left: Energy, right: Energy, t: float) -> None:
        super().__init__()
        self.left = left
        self.right = right
        self.t = t

    def _terms(self) -> tuple[tuple[float, Energy], ...]:
        """Return the ends with their shares; an end without a share is left out."""
        if not 0 <= self.t <= 1:
            raise ValueError(
                f"Got t={self.t!r}, but expected a number in [0, 1]. Beyond the right "
                "end use Guided(right, left, weight=t - 1)."
            )
        pairs = (1.0 - self.t, self.left), (self.t, self.right)
        return tuple((c, part) for c, part in pairs if c)


class Guided(Combination):
    """A conditional energy pushed away from what holds without the condition.

    E(x) = (1 + w) E_c(x) - w E_u(x), p proportional to p_c(x) (p_c(x) / p_u(x))^w. Of
    two Gaussians the result has precision (1 + w) P_c - w P_u, and has no normaliser
    where that is not positive definite.

    Parameters
    ----------
    conditional, unconditional : Energy
        E_c and E_u, over the same columns.
    weight : float
        w >= 0; 0 is the conditional energy.

    References
    ----------
    .. [1] Ho, Salimans (2021), Classifier-free diffusion guidance, NeurIPS workshop on
       deep generative models.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Guided, Quadratic
    >>> parts = 4 * Quadratic().build(1), Quadratic().build(1)
    >>> Guided(*parts, weight=0.5)(torch.full((1, 1), 2.0)).item()
    11.0
    """

    def __init__(
        self, conditional: Energy, unconditional: Energy, weight: float
    ) -> None:
        super().__init__()
        self.conditional = conditional
        self.unconditional = unconditional
        self.weight = weight

    def _terms(self) -> tuple[tuple[float, Energy], ...]:
        """Return the parts with their coefficients; E_u is left out at w = 0."""
        if not 0 <= self.weight < math.inf:
            raise ValueError(
                f"Got weight={self.weight!r}, but expected a finite number >= 0. To "
                "mix the two energies use Interpolated."
            )
        pairs = (
            (1.0 + self.weight, self.conditional),
            (-self.weight, self.unconditional),
        )
        return tuple((c, part) for c, part in pairs if c)


def _mixed(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Return -logsumexp over parts (n,), and the parts' shares (K, n)."""
    # Where every part excludes the row, logsumexp has no gradient and shares are NaN.
    outside = (joint == -torch.inf).all(0)
    total = joint.masked_fill(outside, 0.0).logsumexp(0)
    return torch.where(outside, torch.inf, -total), (joint - total).exp()


def _known_log_partition(part: Energy) -> float:
    """Return the log Z of a part that knows it."""
    known = part.log_partition()
    if known is None:
        raise ValueError(
            f"Mixture needs log Z of every part; got {part!r}, which does not know its "
            "own. Estimate it and pass log_partitions=(...)."
        )
    return known


def _draw(part: Energy, n_samples: int, generator: Generator) -> Tensor:
    """Return rows of a part that can be drawn from."""
    if not isinstance(part, SampledEnergy):
        raise TypeError(
            f"Mixture draws from its parts; got {part!r}, which has no sample(). Run a "
            "sampler on the mixture instead."
        )
    return part.sample(n_samples, generator=generator)
