"""The likelihood gradient with negatives from Markov chains."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn

from skebm.energies import Energy
from skebm.objectives.negatives import (
    check_steps,
    run_steps,
    sampler_or_default,
    two_phases,
)
from skebm.objectives.noise_rows import NoiseRows, noise_rows
from skebm.objectives.objective import Loss, Objective
from skebm.samplers import Sampler


class Replay(nn.Module):
    """What persistent contrastive divergence keeps: where its chains are.

    Parameters
    ----------
    chains : Tensor of shape (n_replay, d)
        One row per chain; a buffer, saved with the module.
    """

    chains: Tensor

    def __init__(self, chains: Tensor) -> None:
        super().__init__()
        self.register_buffer("chains", chains)


@dataclass
class ContrastiveDivergence(Objective):
    """Lower the energy of data, raise it where k steps of a chain lead.

    L = mean E(x) - mean E(x^-), with x^- the state after k steps of a sampler. The
    chain is not differentiated, so the gradient is mean dE(x) - mean dE(x^-): with x^-
    from the model that of the negative log-likelihood. CD-k starts the chains at the
    data; the persistent form lets them run on from batch to batch in a replay buffer.

    Parameters
    ----------
    n_steps : int, default=1
        k, >= 0; 0 has gradient zero.
    sampler : Sampler or None, default=None
        The kernel, with a given step size; None is ``MALA(step_size=0.05)``.
    persistent : bool, default=False
        Continue the chains of a replay buffer.
    n_replay : int, default=1024
        Chains in the buffer, >= 1; each batch continues as many as it has rows, drawn
        without replacement. The fewer, the more steps each one makes.
    reinit : float, default=0.05
        Probability, in [0, 1], with which a continued chain restarts at a data row.
    energy_penalty : float, default=0.0
        Factor, >= 0, on mean E(x)^2 + mean E(x^-)^2, which ties down the free constant
        of E and damps runaway energies.

    Notes
    -----
    k + 1 gradients per batch. The value of the loss is no criterion: it is near zero
    for every energy whose chains are still near the data. Limits: CD-k leaves modes far
    from the data alone; a step size that the chains reject trains nothing (see
    ``acceptance`` in the metrics).

    References
    ----------
    .. [1] Hinton (2002), Training products of experts by minimizing contrastive
       divergence, Neural Computation 14(8).
    .. [2] Tieleman (2008), Training restricted Boltzmann machines using approximations
       to the likelihood gradient, ICML.
    .. [3] Du, Mordatch (2019), Implicit generation and modeling with energy-based
       models, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import ContrastiveDivergence
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy = Quadratic().build(2)
    >>> objective = ContrastiveDivergence(n_steps=5, persistent=True)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    n_steps: int = 1
    sampler: Sampler | None = None
    persistent: bool = False
    n_replay: int = 1024
    reinit: float = 0.05
    energy_penalty: float = 0.0

    is_criterion = False

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return the chains, at random training rows; nothing where none persist.

        Raises
        ------
        ValueError
            If a parameter is out of range or the sampler has no step size.
        """
        check_steps("n_steps", self.n_steps)
        sampler_or_default(self.sampler)
        if not self.persistent:
            return nn.Module()
        if self.n_replay < 1 or not 0 <= self.reinit <= 1:
            raise ValueError(
                f"Got n_replay={self.n_replay!r} and reinit={self.reinit!r}, but "
                "expected n_replay >= 1 and reinit in [0, 1]."
            )
        size = (self.n_replay,)
        rows = torch.randint(len(x), size, generator=generator, device=x.device)
        return Replay(x[rows].detach())

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return mean E(data) - mean E(chains); moves the chains in train mode."""
        starts, which = batch, None
        if self.persistent:
            starts, which = self._continued(batch, cast(Replay, state), generator)
        sampler = sampler_or_default(self.sampler)
        ends, acceptance = run_steps(
            sampler, energy, starts, self.n_steps, generator=generator
        )
        if which is not None and state.training:
            cast(Replay, state).chains[which] = ends
        return two_phases(energy, batch, ends, acceptance, self.energy_penalty)

    def _continued(
        self, batch: Tensor, state: Replay, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return starts (m, d), some of them data rows, and their places (m,)."""
        device = batch.device
        order = torch.randperm(len(state.chains), generator=generator, device=device)
        which = order[: len(batch)]
        restarts = torch.empty(len(which), 1, device=device)
        restarts = restarts.uniform_(generator=generator) < self.reinit
        starts = torch.where(restarts, batch[: len(which)], state.chains[which])
        return starts, which


@dataclass
class MaximumLikelihood(Objective):
    """The likelihood gradient with fresh chains that start from noise.

    L = mean E(x) - mean E(x^-), with x^- the state after many steps of a sampler from
    rows of a broad density. As the chains reach the model, the gradient becomes that of
    the negative log-likelihood, mean dE(x) - E_model dE.

    Parameters
    ----------
    n_steps : int, default=100
        Steps of each chain, >= 0; too few make the energy a generator of n_steps steps,
        and no density.
    sampler : Sampler or None, default=None
        The kernel, with a given step size; None is ``MALA(step_size=0.05)``.
    start : Energy or None, default=None
        Density of the starts, with ``sample``, in `Frozen` so that clone keeps its
        weights. None is the base of a `Tilted` energy, for others the Gaussian with the
        moments of the training rows.
    energy_penalty : float, default=0.0
        Factor, >= 0, on mean E(x)^2 + mean E(x^-)^2.

    Notes
    -----
    n_steps + 2 gradients per batch. Limits: exact only as far as the chains mix within
    n_steps; `ContrastiveDivergence` with ``persistent=True`` spends fewer steps.

    References
    ----------
    .. [1] Nijkamp, Hill, Han, Zhu, Wu (2020), On the anatomy of MCMC-based maximum
       likelihood learning of energy-based models, AAAI.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import MaximumLikelihood
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy, objective = Quadratic().build(2), MaximumLikelihood(n_steps=20)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    n_steps: int = 100
    sampler: Sampler | None = None
    start: Energy | None = None
    energy_penalty: float = 0.0

    is_criterion = False

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> NoiseRows:
        """Return the density of the starts.

        Raises
        ------
        ValueError
            If a parameter is out of range or the sampler has no step size.
        """
        check_steps("n_steps", self.n_steps)
        sampler_or_default(self.sampler)
        return noise_rows(self.start, energy, x)

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return mean E(data) - mean E(chains)."""
        law = cast(NoiseRows, state)
        starts = law.draw(energy, len(batch), generator=generator)
        sampler = sampler_or_default(self.sampler)
        ends, acceptance = run_steps(
            sampler, energy, starts, self.n_steps, generator=generator
        )
        return two_phases(energy, batch, ends, acceptance, self.energy_penalty)
