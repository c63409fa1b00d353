"""Updates of the weights as CUDA graphs, one for each size of batch."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from skebm._graphs import N_EAGER, Capture
from skebm.training.descent import Number

Numbers = dict[str, Tensor]
"""What is recorded of an update, tensors of shape ()."""

Update = Callable[[Tensor, Number, Number], Numbers]
"""Maps a batch, the number of the update and the learning rate to its numbers."""


class ReplayedUpdate:
    """An update that is captured after a few eager ones and replayed from then on.

    Batch, number and rate are copied to where the graph reads them; weights, moments
    and chains stay in place.

    Parameters
    ----------
    update : callable
        The eager update, whose objective `is_replayable`.
    generator : Generator
        Source of its randomness.
    capture : callable
        `captured`.
    """

    def __init__(self, update: Update, generator: Generator, capture: Capture) -> None:
        self._update, self._generator, self._capture = update, generator, capture
        self._graphs: dict[int, _Graph] = {}
        self._n_eager = 0

    def __call__(self, batch: Tensor, t: Number, rate: Number) -> Numbers:
        """Update the weights."""
        if self._n_eager < N_EAGER:
            self._n_eager += 1
            return self._update(batch, t, rate)
        graph = self._graphs.get(len(batch))
        if graph is None:
            graph = _Graph(self._update, batch, self._generator, self._capture)
            self._graphs[len(batch)] = graph
        return graph(batch, t, rate)


class _Graph:
    """An update for batches of one size."""

    def __init__(
        self, update: Update, batch: Tensor, generator: Generator, capture: Capture
    ) -> None:
        self._update, self._batch = update, batch.clone()
        self._t, self._rate = torch.zeros(2, device=batch.device).unbind()
        self._numbers: Numbers = {}
        self._replay = capture(self._move, generator)

    def __call__(self, batch: Tensor, t: Number, rate: Number) -> Numbers:
        """Update the weights and return copies of the numbers."""
        self._batch.copy_(batch)
        self._t.fill_(t)
        self._rate.fill_(rate)
        self._replay()
        return {name: number.clone() for name, number in self._numbers.items()}

    def _move(self) -> None:
        """Update the weights by what was copied."""
        self._numbers = self._update(self._batch, self._t, self._rate)
