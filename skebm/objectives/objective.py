"""What an objective is: a value that maps a batch of rows to a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Generator, Tensor, nn

from skebm._params import Params
from skebm.energies import Energy

HELD_OUT_BATCH = 256
"""Held-out rows that an objective sees at once."""


class Loss(NamedTuple):
    """The loss of one batch.

    Attributes
    ----------
    value : Tensor of shape ()
        What is minimised.
    metrics : dict of str to Tensor of shape ()
        Detached numbers worth a line in the training history.
    """

    value: Tensor
    metrics: dict[str, Tensor]


class Objective(Params, ABC):
    """A way to train E without its normaliser.

    An objective is a value. What it keeps during training (a learned log Z, replayed
    chains, a generator network) lives in the module that `init` returns: the trainer
    optimises its parameters beside those of the energy, and saves and restores it.
    A call changes the module in train mode only; ``state.eval()`` makes a call an
    evaluation on held-out rows.

    References
    ----------
    .. [1] Song, Kingma (2021), How to train your energy-based models,
       arXiv:2101.03288.
    """

    @property
    def is_criterion(self) -> bool:
        """Whether a lower value on held-out rows means a better energy.

        Returns
        -------
        bool
            False where the value measures chains or a game instead of E.
        """
        return True

    def prepared(self, rows: Callable[[Any], Any]) -> Self:
        """Return the objective with the rows it holds as the energy sees rows.

        Parameters
        ----------
        rows : callable
            Maps rows in the units of X to checked, scaled rows.

        Returns
        -------
        Objective
            Itself where it holds no rows.
        """
        return self

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return what the objective keeps during training.

        Parameters
        ----------
        energy : Energy
            The built energy that will be trained.
        x : Tensor of shape (n, d)
            Training rows.
        generator : Generator
            Source of randomness, on the rows' device.

        Returns
        -------
        nn.Module
            Parameters to optimise and buffers to save; empty by default.
        """
        return nn.Module()

    def is_replayable(self, energy: Energy, x: Tensor) -> bool:
        """Tell whether a GPU may replay the whole update as a CUDA graph.

        Parameters
        ----------
        energy : Energy
            The built energy that will be trained.
        x : Tensor of shape (n, d)
            Training rows.

        Returns
        -------
        bool
            True where calls on batches of ``x`` in train mode run the same kernels
            every time, write what they keep in place, and ask the device for no number
            while it captures (`is_capturing`). False by default.
        """
        return False

    def argument(self, energy: Energy, rows: Tensor) -> Tensor:
        """Return what E maps of training rows, which may bring targets with them.

        Parameters
        ----------
        energy : Energy
            The energy in training.
        rows : Tensor of shape (n, ...)
            Training rows.

        Returns
        -------
        Tensor of shape (n, d)
            The rows themselves by default.
        """
        return rows

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return how badly the energy does on held-out rows.

        Parameters
        ----------
        energy : Energy
            The energy in training.
        rows : Tensor of shape (m, d)
            Held-out rows.
        state : nn.Module
            What `init` returned, in eval mode.
        generator : Generator
            Source of randomness; equal seeds make epochs comparable.

        Returns
        -------
        float
            By default the mean of the objective over the rows; less is better.
        """
        total = 0.0
        for batch in torch.split(rows, HELD_OUT_BATCH):
            loss = self(energy, batch, state, generator=generator)
            total += len(batch) / len(rows) * float(loss.value.detach())
        return total

    @abstractmethod
    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the loss of rows ``batch``, shape (n, d); may update ``state``."""
