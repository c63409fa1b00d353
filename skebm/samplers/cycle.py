"""Two kernels in turn."""

from dataclasses import dataclass

from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.samplers.sampler import ChainState, Sampler, StepInfo, Warmup


@dataclass(eq=False)
class Cycle(Sampler):
    """One step of a first kernel, then one of a second: both leave p as it is.

    ``Cycle(HMC(), Independence(base))`` explores a mode with the one and jumps between
    modes with the other.

    Parameters
    ----------
    first, second : Sampler
        Kernels at the same temperature; each one tunes itself in warm-up.

    References
    ----------
    .. [1] Tierney (1994), Markov chains for exploring posterior distributions, Annals
       of Statistics 22(4).

    Examples
    --------
    >>> from skebm.samplers import Cycle, HMC, MALA
    >>> Cycle(HMC(), MALA(temperature=1.0)).temperature
    1.0
    """

    first: Sampler
    second: Sampler

    @property
    def temperature(self) -> float:
        """The temperature of both kernels."""
        return self.first.temperature

    @property
    def n_warmup(self) -> int:
        """Steps of a usual warm-up with 64 chains or more."""
        return max(self.first.n_warmup, self.second.n_warmup)

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        state = _passed_on(self.first.init(energy, x), self.second.init(energy, x))
        if self.first.temperature != self.second.temperature:
            raise ValueError(
                "Cycle needs two kernels at one temperature; got "
                f"{self.first.temperature} and {self.second.temperature}."
            )
        return state

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by both steps; the acceptance is the mean of the two."""
        return _in_turn(self.first, self.second, energy, state, generator)

    def warm_up(self, n_steps: int) -> Warmup:
        """Return the warm-ups of both kernels, in turn.

        Parameters
        ----------
        n_steps : int
            Number of steps that are planned.

        Returns
        -------
        Warmup
            Both tune at once.
        """
        return _Warmups(self.first.warm_up(n_steps), self.second.warm_up(n_steps))


def _in_turn(
    first: Sampler | Warmup,
    second: Sampler | Warmup,
    energy: Energy,
    state: ChainState,
    generator: Generator,
) -> tuple[ChainState, StepInfo]:
    """Return the state after a step of both, and the mean of their acceptance."""
    between, one = first.step(energy, state, generator=generator)
    between = _passed_on(between, state)
    after, two = second.step(energy, between, generator=generator)
    acceptance = (one.acceptance + two.acceptance) / 2
    info = StepInfo(acceptance, one.accepted | two.accepted)
    return _passed_on(after, between), info


def _passed_on(state: ChainState, before: ChainState) -> ChainState:
    """Return the state with the replicas from before where it has none."""
    return state if state.hotter else state._replace(hotter=before.hotter)


class _Warmups(Warmup):
    """Two warm-ups in turn."""

    def __init__(self, first: Warmup, second: Warmup) -> None:
        self._first = first
        self._second = second

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by both steps."""
        return _in_turn(self._first, self._second, energy, state, generator)

    def finish(self) -> Cycle:
        """Return the cycle of the two finished kernels."""
        return Cycle(self._first.finish(), self._second.finish())
