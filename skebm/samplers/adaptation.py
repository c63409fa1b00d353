"""Tuning: the step size by dual averaging, the metric from windows of pooled draws."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.samplers.metric import estimate_factor, spread
from skebm.samplers.sampler import (
    ChainState,
    FixedWarmup,
    Sampler,
    StepInfo,
    Warmup,
    check_positive,
)

_WINDOWS = (1 / 6, 1 / 3, 7 / 12)
"""Ends of the windows after which the metric is estimated; the rest tunes the step."""

_KEPT_VALUES = 2**24
"""Most numbers that a window keeps for its metric; beyond, it keeps fewer draws."""


@dataclass(eq=False)
class Tunable(Sampler):
    """A Metropolis kernel whose step size and metric a warm-up finds.

    Parameters
    ----------
    step_size : float or None, default=None
        In the units that the kernel documents, > 0. None is tuned in warm-up, together
        with a metric that is None; a number is kept.
    temperature : float, default=1.0
        T > 0.
    metric : Tensor of shape (d,) or (d, d), or None, default=None
        Factor L with L L' close to the covariance of x: standard deviations, or a lower
        triangle. None is the identity where ``step_size`` is a number.

    References
    ----------
    .. [1] Hoffman, Gelman (2014), The No-U-Turn sampler, JMLR 15.
    """

    target: ClassVar[float]
    """Mean acceptance that the warm-up aims at."""

    step_size: float | None = None
    temperature: float = 1.0
    metric: Tensor | None = None

    @abstractmethod
    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""

    @abstractmethod
    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step."""

    def warm_up(self, n_steps: int) -> Warmup:
        """Return the tuning of the kernel; a given step size leaves nothing to tune.

        Parameters
        ----------
        n_steps : int
            Number of steps that are planned.

        Returns
        -------
        Warmup
            The tuning.
        """
        return Tuning(self, n_steps) if self.step_size is None else FixedWarmup(self)

    def known_step_size(self) -> float:
        """Return the step size.

        Returns
        -------
        float
            > 0.

        Raises
        ------
        ValueError
            If it is not tuned yet or not positive.
        """
        if self.step_size is None:
            raise ValueError(
                f"{type(self).__name__}(step_size=None) has no step size yet: "
                "run_chains tunes it in its warm-up (n_warmup > 0). Pass a number, or "
                "take the tuned sampler from the chains that it returns."
            )
        check_positive(self, step_size=self.step_size)
        return self.step_size


class DualAveraging:
    """log eps_(t+1) = mu - sqrt(t) / gamma * mean of (target - acceptance).

    Parameters
    ----------
    step_size : float
        First eps > 0.
    target : float
        Wanted mean acceptance in (0, 1).

    References
    ----------
    .. [1] Hoffman, Gelman (2014), The No-U-Turn sampler, JMLR 15.
    """

    def __init__(self, step_size: float, target: float) -> None:
        self.step_size = step_size
        self._target = target
        self._centre = math.log(step_size)
        self._gap = 0.0
        self._mean_log = 0.0
        self._t = 0

    def update(self, acceptance: float) -> float:
        """Learn from one step.

        Parameters
        ----------
        acceptance : float
            Mean acceptance over the chains.

        Returns
        -------
        float
            The next step size.
        """
        self._t += 1
        t = self._t
        self._gap += (self._target - acceptance - self._gap) / (t + 10)
        log_step = self._centre - math.sqrt(t) / 0.05 * self._gap
        # Past these bounds float32 has no numbers left for a step.
        log_step = min(max(log_step, -30.0), 30.0)
        self._mean_log += t**-0.75 * (log_step - self._mean_log)
        self.step_size = math.exp(log_step)
        return self.step_size

    @property
    def averaged(self) -> float:
        """The step size to keep.

        Returns
        -------
        float
            Exponential of a weighted mean of the logarithms.
        """
        return math.exp(self._mean_log) if self._t else self.step_size


class Tuning(Warmup):
    """Windows of steps: each tunes the step size, all but the last end in a metric.

    Parameters
    ----------
    sampler : Tunable
        The kernel; its metric is kept if it has one.
    n_steps : int
        Number of steps that are planned.
    """

    def __init__(self, sampler: Tunable, n_steps: int) -> None:
        self._sampler = sampler
        self._learns_metric = sampler.metric is None
        ends = {max(2, round(n_steps * share)) for share in _WINDOWS}
        self._ends = ends if self._learns_metric else set[int]()
        self._averaging = DualAveraging(1.0, sampler.target)
        self._draws: list[Tensor] = []
        self._n_done = 0

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step and learn from it."""
        if not self._n_done:
            self._start(state.x)
        state, info = self._sampler.step(energy, state, generator=generator)
        step_size = self._averaging.update(float(info.acceptance.mean()))
        self._sampler = replace(self._sampler, step_size=step_size)
        self._n_done += 1
        if self._learns_metric and self._n_done % self._stride == 0:
            self._draws.append(state.x)
        if self._n_done in self._ends:
            self._end_window()
        return state, info

    def finish(self) -> Tunable:
        """Return the kernel with its averaged step size and the last metric."""
        if not self._n_done:
            self._sampler.known_step_size()
        return replace(self._sampler, step_size=self._averaging.averaged)

    def _start(self, x: Tensor) -> None:
        """Take the spread of the starts for the first metric."""
        self._stride = math.ceil(max(self._ends, default=1) * x.numel() / _KEPT_VALUES)
        metric = spread(x) if self._learns_metric else self._sampler.metric
        self._sampler = replace(self._sampler, step_size=1.0, metric=metric)

    def _end_window(self) -> None:
        """Estimate the metric and restart the step size in its units."""
        if self._draws:
            factor = estimate_factor(torch.cat(self._draws), self._sampler.metric)
            self._sampler = replace(self._sampler, step_size=1.0, metric=factor)
            self._averaging = DualAveraging(1.0, self._sampler.target)
        self._draws = []
