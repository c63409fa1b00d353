"""Leapfrog steps of H(u, v) = E(L u) / T + |v|^2 / 2, and the move they propose."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from skebm._torch import normal_like
from skebm.energies import Energy
from skebm.samplers.metric import displaced, pulled_back
from skebm.samplers.sampler import ChainState, StepInfo, accept_or_stay


class Trajectory(NamedTuple):
    """Where leapfrog steps have led.

    Attributes
    ----------
    state : ChainState
        End, with its gradient.
    v : Tensor of shape (n, d)
        Velocities at the end, in the units of the metric.
    inside : Tensor of shape (n,)
        Share of the steps that met no wall, in [0, 1].
    """

    state: ChainState
    v: Tensor
    inside: Tensor


class Dynamics(NamedTuple):
    """What a trajectory is made of.

    Attributes
    ----------
    energy : Energy
        E.
    step_size : Tensor of shape (n, 1) or (1, 1)
        Leapfrog step of every chain, in the units of the metric.
    n_steps : int
        Number of steps, >= 1.
    metric : Tensor of shape (d,) or (d, d), or None
        Factor L.
    temperature : float
        T.
    """

    energy: Energy
    step_size: Tensor
    n_steps: int
    metric: Tensor | None
    temperature: float

    def leapfrog(self, state: ChainState, v: Tensor) -> Trajectory:
        """Follow the trajectory; the map is reversible and keeps volume.

        A step that would end at an energy that is not finite, behind the wall of a hard
        constraint, is not taken: the chain turns round instead, v becomes -v.

        Parameters
        ----------
        state : ChainState
            Start, with its gradient.
        v : Tensor of shape (n, d)
            Velocities in the units of the metric.

        Returns
        -------
        Trajectory
            End of the trajectory.
        """
        assert state.grad is not None
        inside = torch.ones_like(state.e)
        # move = step size times v, so that a leapfrog step is two fused operations.
        kick = self.step_size.square() / -self.temperature
        pull = pulled_back(state.grad, self.metric)
        move = torch.addcmul(v * self.step_size, pull, kick, value=0.5)
        for left in reversed(range(self.n_steps)):
            x = displaced(state.x, move, self.metric)
            there = ChainState(x, *self.energy.value_and_grad(x))
            # On a GPU, asking whether a wall was met costs more than the answer saves.
            if x.is_cuda or not math.isfinite(float(there.e.sum())):
                free = there.e.isfinite()
                there = _chosen(free, there, state)
                move = torch.where(free[:, None], move, -move)
                inside = inside - (~free) / self.n_steps
            state = there
            assert state.grad is not None
            pull = pulled_back(state.grad, self.metric)
            move = torch.addcmul(move, pull, kick, value=1.0 if left else 0.5)
        return Trajectory(state, move / self.step_size, inside)

    def step(
        self, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Draw velocities, follow them, and accept or stay row by row.

        Parameters
        ----------
        state : ChainState
            Where the chains are.
        generator : Generator
            Source of randomness, on the device of the chains.

        Returns
        -------
        state : ChainState
            Where they are next.
        info : StepInfo
            Probability, times the share of steps that met no wall, and outcome.
        """
        v = normal_like(state.x, generator)
        end, v_end, inside = self.leapfrog(state, v)
        kinetic = (v.square() - v_end.square()).sum(1)
        log_ratio = (state.e - end.e).div_(self.temperature).add_(kinetic, alpha=0.5)
        state, info = accept_or_stay(state, end, log_ratio, generator)
        return state, info._replace(acceptance=info.acceptance * inside)


def _chosen(mask: Tensor, yes: ChainState, no: ChainState) -> ChainState:
    """Return the rows of one state where told, else those of another."""
    assert yes.grad is not None
    assert no.grad is not None
    x = torch.where(mask[:, None], yes.x, no.x)
    grad = torch.where(mask[:, None], yes.grad, no.grad)
    return ChainState(x, torch.where(mask, yes.e, no.e), grad)
