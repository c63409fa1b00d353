"""The two phases of the likelihood gradient, and the chains of the negative one."""

from typing import Any

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.objectives.objective import Loss
from skebm.samplers import MALA, Sampler


def run_steps(
    sampler: Sampler, energy: Energy, x: Tensor, n_steps: int, *, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Run chains without a graph, each step from where the one before ended.

    Parameters
    ----------
    sampler : Sampler
        The kernel, its step size given.
    energy : Energy
        The energy in training.
    x : Tensor of shape (n, d)
        Starts.
    n_steps : int
        Steps, >= 0.
    generator : Generator
        Source of randomness, on the rows' device.

    Returns
    -------
    x : Tensor of shape (m, d)
        Ends of the chains, detached.
    acceptance : Tensor of shape ()
        Mean acceptance of the last step, 1 where there was none.
    """
    acceptance = torch.ones((), dtype=x.dtype, device=x.device)
    if not n_steps:
        return x.detach(), acceptance
    with torch.no_grad():
        state = sampler.init(energy, x.detach())
        for _ in range(n_steps):
            state, info = sampler.step(energy, state, generator=generator)
            acceptance = info.acceptance
    return state.x.detach(), acceptance.to(x.dtype).mean()


def two_phases(
    energy: Energy,
    batch: Tensor,
    negatives: Tensor,
    acceptance: Tensor,
    energy_penalty: float,
) -> Loss:
    """Return mean E(data) - mean E(negatives), whose gradient is that of -log p.

    Parameters
    ----------
    energy : Energy
        The energy in training.
    batch : Tensor of shape (n, d)
        Data rows.
    negatives : Tensor of shape (m, d)
        Rows of the model, detached.
    acceptance : Tensor of shape ()
        Mean acceptance of the chains.
    energy_penalty : float
        Factor on mean E(data)^2 + mean E(negatives)^2.

    Returns
    -------
    Loss
        ``gap`` in its metrics is mean E(negatives) - mean E(data): 0 at the optimum.
    """
    # Two calls: where the negatives are the data, the gradients cancel bit by bit.
    low, high = energy(batch), energy(negatives)
    value = low.mean() - high.mean()
    metrics = {
        "energy": low.detach().mean(),
        "gap": -value.detach(),
        "acceptance": acceptance,
    }
    if energy_penalty:
        square = low.square().mean() + high.square().mean()
        value = value + energy_penalty * square
    return Loss(value, metrics)


def sampler_or_default(sampler: Sampler | None) -> Sampler:
    """Return a sampler that can run without a warm-up.

    Parameters
    ----------
    sampler : Sampler or None
        A kernel; None is ``MALA(step_size=0.05)``.

    Returns
    -------
    Sampler
        The kernel.

    Raises
    ------
    ValueError
        If its step size is left to a warm-up.
    """
    if sampler is None:
        return MALA(step_size=0.05)
    params: dict[str, Any] = sampler.get_params(deep=False)
    if params.get("step_size", 1.0) is None:
        raise ValueError(
            f"Got sampler={sampler!r} without a step size, but training has no warm-up "
            "that could tune it. Pass one, for instance step_size=0.05."
        )
    return sampler


def check_steps(name: str, n_steps: int) -> None:
    """Raise unless ``n_steps`` counts steps.

    Parameters
    ----------
    name : str
        The parameter.
    n_steps : int
        Its value.

    Raises
    ------
    ValueError
        If it is negative or no integer.
    """
    if n_steps < 0 or n_steps != int(n_steps):
        raise ValueError(f"Got {name}={n_steps!r}, but expected an integer >= 0.")
