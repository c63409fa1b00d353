"""Energies and base densities in double precision, and what to say of their values."""

import copy
import math
import warnings

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.energies.tilted import SampledEnergy
from skebm.exceptions import PartitionWarning
from skebm.partition.estimate import FEWEST_EFFECTIVE

CHUNK_ROWS = 2**14
"""Rows that one call of an energy sees."""


class Reference:
    """A double precision copy of a base density b, whose normaliser is known."""

    def __init__(self, base: Energy) -> None:
        log_partition = base.log_partition()
        if log_partition is None or not isinstance(base, SampledEnergy):
            raise ValueError(
                f"Got base={base!r}, but expected a density with sample() and a known "
                "log_partition(). Use fit_base(rows), or Gaussians() or Quadratic() "
                "matched to the rows."
            )
        self.base: Energy = copy.deepcopy(base).double().requires_grad_(False).eval()
        self.log_partition = self.base.log_partition() or 0.0

    def sample(self, n_samples: int, generator: Generator) -> Tensor:
        """Return draws, shape (n_samples, d), float64."""
        assert isinstance(self.base, SampledEnergy)
        return self.base.sample(n_samples, generator=generator)

    def surprise(self, x: Tensor) -> Tensor:
        """Return -log b(x), shape (n,)."""
        return energies_at(self.base, x) + self.log_partition

    def moments(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return mean (d,) and covariance (d, d) of some draws."""
        x = self.sample(2**12, generator)
        return x.mean(0), x.T.cov().reshape(x.shape[1], x.shape[1])


def dtype_of(energy: Energy, default: torch.dtype) -> torch.dtype:
    """Return the floating dtype of the energy's weights, ``default`` without any."""
    tensors = [*energy.parameters(), *energy.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), default)


def energies_at(energy: Energy, x: Tensor) -> Tensor:
    """Return E(x) in the dtype of x, shape (n,), evaluated in the energy's own."""
    dtype = dtype_of(energy, x.dtype)
    with torch.no_grad():
        starts = range(0, len(x), CHUNK_ROWS)
        parts = [energy(x[i : i + CHUNK_ROWS].to(dtype)) for i in starts]
    return torch.cat(parts).to(x.dtype)


def refuse_nan(e: Tensor) -> None:
    """Raise if energies are NaN or -inf."""
    n_wrong = int((e.isnan() | (e == -torch.inf)).sum())
    if n_wrong:
        raise ValueError(
            f"Got NaN or -inf as the energy of {n_wrong} of {len(e)} rows, but log Z "
            "needs numbers (+inf where the density is 0). Check the energy's weights, "
            "or train with a smaller learning rate."
        )


def refuse_unusable(e: Tensor) -> None:
    """Raise if energies are NaN or -inf, or none is finite."""
    refuse_nan(e)
    if not e.isfinite().any():
        raise ValueError(
            f"Got an energy of +inf at each of {len(e)} rows, but expected a base that "
            "meets the region where the energy is finite. Pass base=fit_base(rows) "
            "with rows from that region."
        )


def check_at_least(owner: object, name: str, least: float) -> None:
    """Raise ValueError if a hyperparameter is below ``least``."""
    value = getattr(owner, name)
    if not value >= least:
        kind = type(owner).__name__
        raise ValueError(f"Got {name}={value!r} in {kind}, but expected >= {least}.")


def warn(message: str) -> None:
    """Issue a `PartitionWarning` at the line that asked for log Z."""
    warnings.warn(message, PartitionWarning, stacklevel=3)


def warn_if_few(ess: float, n_draws: int, advice: str) -> None:
    """Warn if the effective sample size is a small share of the draws."""
    if ess < FEWEST_EFFECTIVE * n_draws:
        warnings.warn(
            f"log Z rests on {ess:.1f} effective of {n_draws} draws; its interval may "
            f"be too narrow. {advice}",
            PartitionWarning,
            stacklevel=3,
        )


def log_mean(log_weights: Tensor) -> tuple[float, float, float]:
    """Return log mean w, its standard error by the delta method, and the ESS.

    se^2 = var(w) / (n mean(w)^2) = 1 / ESS - 1 / n, ESS = (sum w)^2 / sum w^2.
    """
    n = len(log_weights)
    total = log_weights.logsumexp(0)
    ess = float((2 * total - (2 * log_weights).logsumexp(0)).exp())
    return float(total) - math.log(n), max(0.0, 1 / ess - 1 / n) ** 0.5, ess


def ess_of(half: float, n_draws: int) -> float:
    """Return the independent draws that an interval of +- ``half`` is worth.

    se^2 = 1 / ESS - 1 / n solved for ESS, as for importance sampling.
    """
    return n_draws / (1 + n_draws * (half / 1.96) ** 2)
