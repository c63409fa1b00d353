"""log Z = log E_b[exp(-E(x)) / b(x)]: importance sampling from a base density b."""

from dataclasses import dataclass

from torch import Generator

from skebm.energies import Energy
from skebm.partition._reference import (
    Reference,
    check_at_least,
    energies_at,
    log_mean,
    refuse_unusable,
    warn_if_few,
)
from skebm.partition.estimate import LogPartition, Normalizer


@dataclass
class ImportanceSampling(Normalizer):
    """Average of exp(-E(x)) / b(x) over independent draws x of the base density b.

    log Z = log (1/n) sum_i exp(-E(x_i) - log b(x_i)), x_i ~ b, summed as a log-sum-exp.
    The interval is +- 1.96 standard errors by the delta method,
    se^2 = 1 / ESS - 1 / n with ESS = (sum w)^2 / sum w^2.

    Parameters
    ----------
    n_samples : int, default=400_000
        Draws n, >= 2.

    Notes
    -----
    Cost: n evaluations of the energy. Limits: where the base has lighter tails than
    the energy, or misses a mode, the estimate is too low and the interval too narrow;
    an effective sample size below 5% of the draws raises `PartitionWarning`.

    References
    ----------
    .. [1] Owen (2013), Monte Carlo theory, methods and examples, chapter 9.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.partition import ImportanceSampling
    >>> base, g = Quadratic().build(2), torch.Generator().manual_seed(0)
    >>> estimate = ImportanceSampling(1000)(1.1 * base, base=base, generator=g)
    >>> round(estimate.value, 2), round((1.1 * base).log_partition(), 2)
    (1.74, 1.74)
    """

    n_samples: int = 400_000

    def __call__(
        self, energy: Energy, *, base: Energy, generator: Generator
    ) -> LogPartition:
        """Return the average over ``n_samples`` draws of ``base``."""
        check_at_least(self, "n_samples", 2)
        reference = Reference(base)
        x = reference.sample(self.n_samples, generator)
        e = energies_at(energy, x)
        refuse_unusable(e)
        value, error, ess = log_mean(reference.surprise(x) - e)
        warn_if_few(
            ess,
            self.n_samples,
            "Use SMC() or AIS(), a base closer to the energy, or more n_samples.",
        )
        half = 1.96 * error
        return LogPartition(value, (value - half, value + half), ess, repr(self))
