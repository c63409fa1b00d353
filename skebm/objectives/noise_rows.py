"""Rows of a known density, against which an energy learns to tell the data."""

import copy
import itertools

import torch
from torch import Generator, Tensor, nn

from skebm.energies import Energy, Frozen, Quadratic
from skebm.energies.tilted import SampledEnergy, Tilted

FLOOR = 1e-6
"""Least variance in any direction of a matched Gaussian, in mean column variances."""


class NoiseRows(nn.Module):
    """Draws from a density q and compares E with it.

    Parameters
    ----------
    law : Energy or None
        q, normalised; None is the base of the `Tilted` energy itself, whose density
        then cancels out of the comparison.
    log_partition : Tensor of shape ()
        log Z of ``law``.
    """

    log_partition: Tensor

    def __init__(self, law: Energy | None, log_partition: Tensor) -> None:
        super().__init__()
        self.law = law
        self.register_buffer("log_partition", log_partition)

    def draw(self, energy: Energy, n: int, *, generator: Generator) -> Tensor:
        """Return independent rows of q.

        Parameters
        ----------
        energy : Energy
            The energy in training.
        n : int
            Number of rows.
        generator : Generator
            Source of randomness, on the rows' device.

        Returns
        -------
        Tensor of shape (n, d)
            The rows, detached.
        """
        if isinstance(self.law, SampledEnergy):
            with torch.no_grad():
                return self.law.sample(n, generator=generator)
        assert isinstance(energy, Tilted)
        return energy.sample_base(n, generator=generator)

    def log_ratio(self, energy: Energy, x: Tensor) -> Tensor:
        """Return -E(x) - log q(x).

        Parameters
        ----------
        energy : Energy
            The energy in training.
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n,)
            The log-ratio of the densities, up to log Z.
        """
        if self.law is None:
            assert isinstance(energy, Tilted)
            return -energy.correction(x)
        with torch.no_grad():
            log_q = -self.law(x) - self.log_partition
        ratio: Tensor = -energy(x) - log_q
        return ratio


def noise_rows(law: Energy | None, energy: Energy, x: Tensor) -> NoiseRows:
    """Return the source of noise rows: ``law``, the energy's base, or a Gaussian.

    Parameters
    ----------
    law : Energy or None
        A normalised energy with ``sample``, bare or in `Frozen`. None takes the base of
        a `Tilted` energy, for others the Gaussian with the moments of ``x``.
    energy : Energy
        The energy in training.
    x : Tensor of shape (n, d)
        Training rows.

    Returns
    -------
    NoiseRows
        With a frozen copy of the law.

    Raises
    ------
    ValueError
        If the law has no weights, no ``sample`` or no known log Z.
    """
    if law is None and isinstance(energy, Tilted):
        return NoiseRows(None, x.new_zeros(()))
    if law is None:
        law = matched_gaussian(x)
    bare = law.part if isinstance(law, Frozen) else law
    if next(itertools.chain(bare.parameters(), bare.buffers()), None) is None:
        raise ValueError(
            f"Got noise={law!r} without weights, but expected a density. Give it its "
            "parameters with match(...) and pass it as Frozen(...), which clone keeps."
        )
    known = bare.log_partition()
    if known is None or not isinstance(bare, SampledEnergy):
        raise ValueError(
            f"Got noise={law!r}, but expected a normalised energy that can be drawn "
            "from. Use Quadratic() or Gaussians()."
        )
    own = copy.deepcopy(bare).requires_grad_(False).eval().to(x.device, x.dtype)
    return NoiseRows(own, x.new_full((), known))


def matched_gaussian(x: Tensor) -> Quadratic:
    """Return the Gaussian with the mean and covariance of the rows.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    Quadratic
        In the dtype and on the device of ``x``.
    """
    return Quadratic().match(*moments(x)).to(x.device, x.dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the covariance of rows, with a floor under the variance.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    mean : Tensor of shape (d,)
        In float64, on the CPU.
    covariance : Tensor of shape (d, d)
        Positive definite also where columns are constant or repeat each other.
    """
    rows = x.detach().to("cpu", torch.float64)
    mean = rows.mean(0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    size = covariance.diagonal().mean()
    floor = torch.where(size > 0, FLOOR * size, 1.0)
    return mean, covariance + floor * torch.eye(len(mean), dtype=torch.float64)
