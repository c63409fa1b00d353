"""Running chains: starts -> warm-up -> draws with their diagnostics."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.samplers.diagnostics import bulk_ess, split_rhat
from skebm.samplers.sampler import ChainState, Sampler
from skebm.samplers.steps import steps_of

_USUAL_CHAINS = 64
"""Chains for which the usual warm-up of a sampler is long enough."""


@dataclass(eq=False)
class Chains:
    """Draws of chains after warm-up, and how far to trust them.

    Parameters
    ----------
    draws : Tensor of shape (n_draws, n_chains, d)
        Places, in order.
    energies : Tensor of shape (n_draws, n_chains)
        E of each draw.
    acceptance : float
        Mean acceptance probability after warm-up, in [0, 1].
    sampler : Sampler
        The sampler as tuned, to be used again with ``n_warmup=0``.

    References
    ----------
    .. [1] Vehtari, Gelman, Simpson, Carpenter, Burkner (2021), Rank-normalization,
       folding, and localization: an improved R-hat, Bayesian Analysis 16(2).

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import MALA, Chains
    >>> x = torch.randn(100, 4, 2, generator=torch.Generator().manual_seed(0))
    >>> chains = Chains(x, x.square().sum(2), 1.0, MALA())
    >>> bool((chains.ess() > 200).all())
    True
    """

    draws: Tensor
    energies: Tensor
    acceptance: float
    sampler: Sampler

    def rhat(self) -> Tensor:
        """Return the rank-normalised split R-hat.

        Returns
        -------
        Tensor of shape (d,)
            About 1 where the chains agree; above 1.01 they need more steps.
        """
        return split_rhat(self.draws)

    def ess(self) -> Tensor:
        """Return the bulk effective sample size.

        Returns
        -------
        Tensor of shape (d,)
            Number of independent draws with the same error of the mean.
        """
        return bulk_ess(self.draws)


def run_chains(
    sampler: Sampler,
    energy: Energy,
    x: Tensor,
    *,
    n_draws: int,
    n_warmup: int | None = None,
    thin: int = 1,
    generator: Generator,
) -> Chains:
    """Warm up, tune once, and draw.

    Parameters
    ----------
    sampler : Sampler
        The kernel; it is not changed.
    energy : Energy
        A built energy.
    x : Tensor of shape (n_chains, d)
        Starts, of finite energy. Chains run side by side: many (64) cost little more
        than one.
    n_draws : int
        Draws to keep per chain, >= 1.
    n_warmup : int or None, default=None
        Steps before the first draw, in which step size and metric are tuned where the
        sampler leaves them open. None takes what the sampler usually needs with 64
        chains, and up to eight times that with fewer.
    thin : int, default=1
        Steps per kept draw, >= 1.
    generator : Generator
        Source of randomness, on the device of ``x``.

    Returns
    -------
    Chains
        Draws, energies, acceptance and the tuned sampler.

    Raises
    ------
    ValueError
        If a start has no finite energy, or a count is too small.
    """
    if n_draws < 1 or thin < 1 or (n_warmup is not None and n_warmup < 0):
        raise ValueError(
            "run_chains needs n_draws >= 1, thin >= 1 and n_warmup >= 0; got "
            f"n_draws={n_draws}, thin={thin}, n_warmup={n_warmup}."
        )
    if n_warmup is None:
        few = min(8.0, max(1.0, _USUAL_CHAINS / len(x)))
        n_warmup = round(sampler.n_warmup * few)
    with torch.no_grad():
        state = sampler.init(energy, x)
        _check_starts(state)
        warmup = sampler.warm_up(n_warmup)
        for _ in range(n_warmup):
            state, _ = warmup.step(energy, state, generator=generator)
        return _draw(warmup.finish(), energy, state, n_draws, thin, generator)


def _check_starts(state: ChainState) -> None:
    """Raise if a chain starts where the density is zero or undefined."""
    n_bad = int((~state.e.isfinite()).sum())
    if n_bad:
        raise ValueError(
            f"{n_bad} of {len(state.e)} chains start at an energy that is not finite. "
            "Start inside the constraints and near the data: project the starts on the "
            "region, or take rows of the training data."
        )


def _draw(
    sampler: Sampler,
    energy: Energy,
    state: ChainState,
    n_draws: int,
    thin: int,
    generator: Generator,
) -> Chains:
    """Return the draws that follow ``state``."""
    draws = state.x.new_empty(n_draws, *state.x.shape)
    energies = state.e.new_empty(n_draws, len(state.e))
    steps = steps_of(sampler, energy, state, n_draws * thin, generator)
    for i in range(n_draws):
        for _ in range(thin):
            steps()
        draws[i] = steps.state.x
        energies[i] = steps.state.e
    mean = float(steps.acceptance.mean()) / (n_draws * thin)
    return Chains(draws, energies, mean, sampler)
