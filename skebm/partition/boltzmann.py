"""log Z of a Boltzmann machine: all states in two halves, or annealing by Gibbs."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm.energies import Boltzmann, Energy
from skebm.partition._gibbs import GibbsAnnealing, GibbsPath
from skebm.partition.estimate import LogPartition, Normalizer
from skebm.samplers import AnnealedUnits
from skebm.samplers.state_law import law_of
from skebm.samplers.unit_gibbs import with_hidden


@dataclass
class StateSum(Normalizer):
    """The exact log Z of a Boltzmann machine, by a sum over all of its states.

    Z = sum_s exp(s'Ls/2 + a's) over the 2^n states of visible and hidden bits, in
    double precision.

    Parameters
    ----------
    most_units : int, default=24
        Refuse larger machines.

    References
    ----------
    .. [1] Ackley, Hinton, Sejnowski (1985), A learning algorithm for Boltzmann
       machines, Cognitive Science 9(1).

    Examples
    --------
    >>> from skebm.energies import Boltzmann
    >>> from skebm.partition import StateSum
    >>> round(StateSum()(Boltzmann().build(3)).value, 1)  # about 3 log 2
    2.1
    """

    most_units: int = 24

    def __call__(
        self,
        energy: Energy,
        *,
        base: Energy | None = None,
        generator: Generator | None = None,
    ) -> LogPartition:
        """Return the sum.

        Parameters
        ----------
        energy : Boltzmann
            Built.
        base, generator : optional
            Unused.

        Returns
        -------
        LogPartition
            The exact value.

        Raises
        ------
        ValueError
            If the machine has more than ``most_units`` units.
        """
        machine = checked_machine(energy)
        if machine.n_units > self.most_units:
            raise ValueError(
                f"Got a Boltzmann machine of {machine.n_units} units, but StateSum "
                f"sums over at most {self.most_units}. Use AnnealedUnitGibbs()."
            )
        value = float(law_of(machine).log_partition)
        return LogPartition(value, (value, value), math.inf, repr(self))


def checked_machine(energy: Energy) -> Boltzmann:
    """Return an energy that is a Boltzmann machine; raise for any other.

    Parameters
    ----------
    energy : Energy
        Built.

    Returns
    -------
    Boltzmann
        An energy that is a Boltzmann machine; raise for any other.
    """
    if not isinstance(energy, Boltzmann):
        raise TypeError(
            f"Got {type(energy).__name__}, but expected a Boltzmann. Use LayerSum() or "
            "AnnealedGibbs() for an RBM, AIS() or SMC() for other energies."
        )
    return energy


@dataclass
class AnnealedUnitGibbs(GibbsAnnealing):
    """Annealed importance sampling of a Boltzmann machine, from bits and back.

    As `AnnealedGibbs`, with a sweep of single units at every place of the path
    E_t(s) = -((1 - t) a_0 + t a)'s - t s'Ls/2 [1]_ over visible and hidden bits.

    Parameters
    ----------
    n_chains : int, default=256
        Chains each way, >= 32, rounded down to a multiple of 16.
    n_temperatures : int, default=500
        Places on the path, >= 1, evenly spread over t in (0, 1].
    bracket : bool, default=True
        Walk back too; else the value is the forward one.

    References
    ----------
    .. [1] Neal (2001), Annealed importance sampling, Statistics and Computing 11(2).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Boltzmann
    >>> from skebm.partition import AnnealedUnitGibbs, StateSum
    >>> machine, g = Boltzmann().build(6), torch.Generator().manual_seed(0)
    >>> estimate = AnnealedUnitGibbs(64, n_temperatures=50)(machine, generator=g)
    >>> abs(estimate.value - StateSum()(machine).value) < 0.01
    True
    """

    n_temperatures: int = 500

    def _path(
        self,
        energy: Energy,
        base: Energy | None,
        x: Tensor | None,
        generator: Generator,
    ) -> GibbsPath:
        """Return the way from the machine's ``start``, independent bits, to it."""
        return _FromBits(checked_machine(energy), generator)


class _FromBits(GibbsPath):
    """The way from independent bits to a Boltzmann machine."""

    def __init__(self, machine: Boltzmann, generator: Generator) -> None:
        self.machine = machine
        self.units = AnnealedUnits(machine, machine.start)
        self.generator = generator
        softplus = torch.nn.functional.softplus
        self.log_start = float(softplus(machine.start.double()).sum())

    def start(self, n: int) -> Tensor:
        """Return draws of the independent bits, shape (n, n_units)."""
        bits = self.units.start.expand(n, -1)
        return self.move(bits, 0.0)

    def near(self, rows: Tensor) -> Tensor:
        """Return the rows with draws of their hidden bits."""
        return with_hidden(self.machine, rows, generator=self.generator)

    def move(self, s: Tensor, t: float) -> Tensor:
        """Return states after a sweep over the units."""
        return self.units.move(s, t, generator=self.generator)

    def leap(self, s: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
        """Return E_now - E_then, linear in t, and states after a sweep."""
        rise = (then - now) * self.units.slope(s)
        return rise, self.move(s, then) if then > 0 else s
