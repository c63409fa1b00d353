"""A tuned sampler's steps, one after another: eager, or on a GPU one CUDA graph."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from skebm._graphs import N_EAGER, Capture, captured
from skebm.energies import Energy
from skebm.samplers.sampler import ChainState, Sampler

FEWEST_GRAPHED = 20
"""A graph does not pay for fewer steps."""


class Steps:
    """Chains that move by one step with every call.

    Parameters
    ----------
    sampler : Sampler
        The kernel, tuned.
    energy : Energy
        A built energy.
    state : ChainState
        Where the chains are.
    generator : Generator
        Source of randomness, on the device of the chains.

    Attributes
    ----------
    state : ChainState
        Where they are now.
    acceptance : Tensor of shape (n,)
        Sum of the acceptance probabilities of all steps.
    """

    def __init__(
        self, sampler: Sampler, energy: Energy, state: ChainState, generator: Generator
    ) -> None:
        self.sampler, self.energy = sampler, energy
        self.state, self.generator = state, generator
        self.acceptance = torch.zeros_like(state.e)

    def __call__(self) -> None:
        """Move every chain by one step."""
        self.state, info = self.sampler.step(
            self.energy, self.state, generator=self.generator
        )
        self.acceptance += info.acceptance


class GraphedSteps:
    """The steps of chains as one CUDA graph, captured once and replayed.

    Small batches spend an eager step on launching its kernels from Python; a replay
    launches them all at once. The tensors of the state stay in place.

    Parameters
    ----------
    steps : Steps
        Eager steps on a GPU, a few of them done, that never ask it for a number.
    capture : callable
        `captured`.

    Attributes
    ----------
    state, acceptance : ChainState, Tensor of shape (n,)
        Those of `Steps`, since the capture.
    """

    def __init__(self, steps: Steps, capture: Capture) -> None:
        self._steps = steps
        self.state = _mapped(torch.clone, steps.state)
        self.acceptance = torch.zeros_like(steps.acceptance)
        self._replay = capture(self._move, steps.generator)

    def __call__(self) -> None:
        """Move every chain by one step."""
        self._replay()

    def _move(self) -> None:
        """Take one step and write its outcome where the next one reads."""
        after, info = self._steps.sampler.step(
            self._steps.energy, self.state, generator=self._steps.generator
        )
        for kept, new in zip(_tensors(self.state), _tensors(after), strict=True):
            kept.copy_(new)
        self.acceptance.add_(info.acceptance)


def steps_of(
    sampler: Sampler,
    energy: Energy,
    state: ChainState,
    n_steps: int,
    generator: Generator,
) -> Steps | GraphedSteps:
    """Return the steps of chains, as a CUDA graph where that pays and is possible.

    Parameters
    ----------
    sampler : Sampler
        The kernel, tuned.
    energy : Energy
        A built energy.
    state : ChainState
        Where the chains are.
    n_steps : int
        Steps that are planned.
    generator : Generator
        Source of randomness, on the device of the chains.

    Returns
    -------
    Steps or GraphedSteps
        A graph on a CUDA device for 20 steps or more, unless a step asks the GPU for
        a number, which a graph cannot; then the chains have moved a few steps on.
    """
    steps = Steps(sampler, energy, state, generator)
    if not state.x.is_cuda or n_steps < FEWEST_GRAPHED:
        return steps
    with torch.cuda.device(state.x.device):
        if not _runs_alone(steps):
            return Steps(sampler, energy, state, generator)
        return GraphedSteps(steps, captured)


def _runs_alone(steps: Steps) -> bool:  # pragma: no cover
    """Take a few steps on a side stream; tell whether none waits for the GPU."""
    mode = torch.cuda.get_sync_debug_mode()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(side):
            for _ in range(N_EAGER):
                steps()
    except RuntimeError:
        # A true error comes back from the eager steps that follow.
        return False
    finally:
        torch.cuda.set_sync_debug_mode(mode)
        torch.cuda.synchronize()
    return True


def _tensors(state: ChainState) -> list[Tensor]:
    """Return the tensors of a state and of its hotter replicas."""
    own = [part for part in (state.x, state.e, state.grad) if part is not None]
    return own + (_tensors(state.hotter) if state.hotter else [])


def _mapped(change: Callable[[Tensor], Tensor], state: ChainState) -> ChainState:
    """Return a state with ``change`` made to each of its tensors."""
    grad, hotter = state.grad, state.hotter
    return ChainState(
        change(state.x),
        change(state.e),
        None if grad is None else change(grad),
        None if hotter is None else _mapped(change, hotter),
    )
