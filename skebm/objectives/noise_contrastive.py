"""Noise-contrastive estimation: tell data from rows of a known density."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from skebm.energies import Energy
from skebm.objectives.noise_rows import NoiseRows, noise_rows
from skebm.objectives.objective import Loss, Objective

N_HELD_OUT, N_HELD_OUT_WIDE, MANY_COLUMNS = 5000, 1000, 64
"""Noise rows behind a held-out likelihood, up to as many columns and beyond."""

N_START = 1000
"""Noise rows behind the importance estimate at which the learned log Z starts."""


class LearnedLogPartition(nn.Module):
    """What `NoiseContrastive` keeps: the noise and a learned log Z.

    Parameters
    ----------
    noise : NoiseRows
        Source of the noise rows.
    start : Tensor of shape ()
        First value of c.
    learn : bool
        Whether c is learned.

    Attributes
    ----------
    log_partition : Parameter of shape ()
        c: after training, exp(-E(x) - c) approximates a density.
    """

    log_partition: nn.Parameter

    def __init__(self, noise: NoiseRows, start: Tensor, learn: bool) -> None:
        super().__init__()
        self.noise = noise
        self.log_partition = nn.Parameter(start, requires_grad=learn)


@dataclass
class NoiseContrastive(Objective):
    """Logistic regression between data and noise rows, with log Z as a parameter.

    With q the density of the noise, nu its rows per data row and c the learned log Z,
    l(x) = -E(x) - c - log q(x) - log nu is the logit of "x is data" and the loss is

    L = mean_data softplus(-l(x)) + nu mean_noise softplus(l(x)).

    Its minimum is at exp(-E - c) = the density of the data, so c is an estimate of
    log Z, readable after training as ``state.log_partition``. For a `Tilted` energy and
    its base as noise, log q cancels: l(x) = -tilt(x) - c - log nu, and neither density
    is evaluated.

    Parameters
    ----------
    noise : Energy or None, default=None
        Normalised density with ``sample``, in `Frozen` so that clone keeps its weights.
        None is the base of a `Tilted` energy, for others the Gaussian with the moments
        of the training rows.
    ratio : int, default=1
        nu, noise rows per data row, >= 1; more lower the variance, at their cost.
    learn_log_partition : bool, default=True
        False fixes c at 0: an energy with a free constant then absorbs log Z.

    Notes
    -----
    One evaluation of E on (1 + nu) n rows per batch. Limits: where noise and data
    hardly overlap the classes separate and nothing is learned; c inherits the error of
    the fit and is no substitute for an estimate of log Z with an interval.

    References
    ----------
    .. [1] Gutmann, Hyvarinen (2010), Noise-contrastive estimation: a new estimation
       principle for unnormalized statistical models, AISTATS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import NoiseContrastive
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy, objective = Quadratic().build(2), NoiseContrastive(ratio=2)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    noise: Energy | None = None
    ratio: int = 1
    learn_log_partition: bool = True

    def init(
        self, energy: Energy, x: Tensor, *, generator: Generator
    ) -> LearnedLogPartition:
        """Return the noise and c at its importance estimate.

        Raises
        ------
        ValueError
            If ``ratio`` is below 1 or the noise is no normalised density.
        """
        if self.ratio < 1 or self.ratio != int(self.ratio):
            raise ValueError(
                f"Got ratio={self.ratio!r}, but expected an integer >= 1: the noise "
                "rows per data row."
            )
        noise = noise_rows(self.noise, energy, x)
        start = x.new_zeros(())
        if self.learn_log_partition:
            drawn = noise.draw(energy, N_START, generator=generator)
            with torch.no_grad():
                ratios = noise.log_ratio(energy, drawn)
            start = ratios.logsumexp(0) - math.log(N_START)
        return LearnedLogPartition(noise, start, self.learn_log_partition)

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return log q(x) - log p(x), the mean over held-out rows, log Z estimated.

        Negative: the energy explains the rows better than the noise density does. log Z
        comes from importance sampling, so the learned c has no part in it.

        """
        kept = cast(LearnedLogPartition, state)
        is_wide = rows.shape[1] > MANY_COLUMNS
        n = max(len(rows), N_HELD_OUT_WIDE if is_wide else N_HELD_OUT)
        drawn = kept.noise.draw(energy, n, generator=generator)
        with torch.no_grad():
            log_z = kept.noise.log_ratio(energy, drawn).logsumexp(0) - math.log(n)
            return float(log_z - kept.noise.log_ratio(energy, rows).mean())

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the logistic loss of ``batch`` against fresh noise rows."""
        kept = cast(LearnedLogPartition, state)
        n = len(batch)
        drawn = kept.noise.draw(energy, self.ratio * n, generator=generator)
        logit = kept.noise.log_ratio(energy, torch.cat([batch, drawn]))
        logit = logit - (kept.log_partition + math.log(self.ratio))
        data, noise = logit[:n], logit[n:]
        value = softplus(-data).mean() + self.ratio * softplus(noise).mean()
        return Loss(value, {"log_partition": kept.log_partition.detach()})
