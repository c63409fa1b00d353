"""log Z from the weights of a population of particles: sequential Monte Carlo."""

from dataclasses import dataclass

from torch import Generator

from skebm.energies import Energy
from skebm.partition._path import Bridge, Swarm
from skebm.partition._reference import check_at_least, ess_of, warn_if_few
from skebm.partition._spread import N_ISLANDS, across_islands, forward_estimate
from skebm.partition.estimate import LogPartition, Normalizer, Particles


@dataclass
class SMC(Normalizer):
    """Sequential Monte Carlo from the base to the energy.

    Particles follow the path E_t(x) = -(1 - t) log b(x) + t E(x), and
    log Z = sum_k log sum_i W_i exp((t_(k+1) - t_k) (-log b(x_i) - E(x_i))), W their
    weights. The next t is where the conditional effective sample size falls to the
    share ``effective``; particles are drawn anew where the weights keep less than half
    of them, then take Hamiltonian moves whose metric is the particles' covariance and
    whose step size aims at an acceptance of .8. Sixteen islands resample each for
    itself; the 95% interval comes from how much they differ.

    Parameters
    ----------
    n_particles : int, default=4096
        Particles, >= 32, rounded up to a multiple of 16.
    n_steps : int, default=2
        Hamiltonian moves at each temperature, >= 1.
    effective : float, default=0.99
        Conditional effective sample size of a step, as a share, in (0, 1). Closer to 1
        means more temperatures and less error.

    Notes
    -----
    Cost: up to 8 gradients of the energy per particle, temperature and move. Limits: a
    mode that the base does not reach is missed, and the islands then agree on too low
    a value.

    References
    ----------
    .. [1] Del Moral, Doucet, Jasra (2006), Sequential Monte Carlo samplers, Journal of
       the Royal Statistical Society B 68(3).
    .. [2] Zhou, Johansen, Aston (2016), Toward automatic model comparison: an adaptive
       sequential Monte Carlo approach, Journal of Computational and Graphical
       Statistics 25(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.partition import SMC
    >>> base, g = Quadratic().build(2), torch.Generator().manual_seed(0)
    >>> estimate = SMC(n_particles=1024)(4 * base, base=base, generator=g)
    >>> abs(estimate.value - (4 * base).log_partition()) < 0.1
    True
    """

    n_particles: int = 4096
    n_steps: int = 2
    effective: float = 0.99

    def __call__(
        self, energy: Energy, *, base: Energy, generator: Generator
    ) -> LogPartition:
        """Return log Z of ``energy``."""
        return self.populate(energy, base=base, generator=generator)[0]

    def populate(
        self, energy: Energy, *, base: Energy, generator: Generator
    ) -> tuple[LogPartition, Particles]:
        """Return log Z and the particles, which are weighted draws of the density.

        Parameters
        ----------
        energy : Energy
            E, built.
        base : Energy
            A density near that of the energy, with ``sample`` and ``log_partition``.
        generator : Generator
            Source of randomness, on the base's device.

        Returns
        -------
        estimate : LogPartition
            Estimate, interval, effective sample size, method.
        particles : Particles
            Rows in double precision, with log weights.
        """
        check_at_least(self, "n_particles", 2 * N_ISLANDS)
        check_at_least(self, "n_steps", 1)
        if not 0 < self.effective < 1:
            raise ValueError(
                f"Got effective={self.effective!r} in SMC, but expected a share in "
                "(0, 1)."
            )
        bridge = Bridge(base, energy)
        swarm = Swarm(bridge, self.n_particles, self.effective, generator)
        swarm.run(self.n_steps)
        log_weights = swarm.log_weights.view(N_ISLANDS, -1) + swarm.log_z[:, None]
        value, half = across_islands(forward_estimate, log_weights)
        n = log_weights.numel()
        ess = ess_of(half, n)
        warn_if_few(ess, n, "Use more n_particles or n_steps, or a closer base.")
        interval = value - half, value + half
        particles = Particles(swarm.x, log_weights.flatten().log_softmax(0))
        return LogPartition(value, interval, ess, repr(self)), particles
