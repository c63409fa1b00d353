"""Penalties on energies, gradients and weights, beside any objective."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies import Energy
from skebm.objectives.gradients import grad_in_graph
from skebm.objectives.objective import Loss, Objective


@dataclass
class Regularized(Objective):
    """An objective plus penalties.

    L = L_objective + a mean E(x)^2 + b mean |dE/dx|^2 + c sum_w w^2, the means over the
    data rows of the batch and the sum over the weights in training. The first ties down
    the free constant of E, the second makes E smooth where the data are, the third
    keeps networks small. The penalties belong to training: with ``state.eval()`` the
    value is that of the objective alone, so that held-out values compare.

    Parameters
    ----------
    objective : Objective
        What is penalised.
    energy : float, default=0.0
        a, >= 0.
    gradient : float, default=0.0
        b, >= 0; costs a second backward pass.
    weight : float, default=0.0
        c, >= 0. An optimiser's decoupled weight decay is another thing: it does not
        pass through the adaptive step.

    References
    ----------
    .. [1] Du, Mordatch (2019), Implicit generation and modeling with energy-based
       models, NeurIPS.
    .. [2] Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville (2017), Improved training of
       Wasserstein GANs, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import Regularized, ScoreMatching
    >>> x, g = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.Generator()
    >>> energy = Quadratic().build(2)
    >>> objective = Regularized(ScoreMatching(), gradient=0.5)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.item()  # -1 + 0.5 * 2
    0.0
    """

    objective: Objective
    energy: float = 0.0
    gradient: float = 0.0
    weight: float = 0.0

    @property
    def is_criterion(self) -> bool:
        """Whether the value is a criterion.

        Returns
        -------
        bool
            What the penalised objective says.
        """
        return self.objective.is_criterion

    def prepared(self, rows: Callable[[Any], Any]) -> Self:
        """Return the same penalties on the prepared objective.

        Parameters
        ----------
        rows : callable
            Maps rows in the units of X to checked, scaled rows.

        Returns
        -------
        Regularized
            A new value.
        """
        return replace(self, objective=self.objective.prepared(rows))

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return what the penalised objective keeps.

        Raises
        ------
        ValueError
            If a factor is negative.
        """
        factors = self.energy, self.gradient, self.weight
        if not all(factor >= 0 for factor in factors):
            raise ValueError(
                f"Got energy={self.energy!r}, gradient={self.gradient!r}, "
                f"weight={self.weight!r}, but expected numbers >= 0."
            )
        return self.objective.init(energy, x, generator=generator)

    def argument(self, energy: Energy, rows: Tensor) -> Tensor:
        """Return what the penalised objective says."""
        return self.objective.argument(energy, rows)

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the penalised objective's criterion."""
        return self.objective.criterion(energy, rows, state, generator=generator)

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the objective's loss, plus the penalties in train mode."""
        loss = self.objective(energy, batch, state, generator=generator)
        if not state.training:
            return loss
        value, metrics = loss.value, dict(loss.metrics)
        for name, penalty in self._penalties(energy, batch):
            value = value + penalty
            metrics[f"{name}_penalty"] = penalty.detach()
        if not loss.value.requires_grad and value.requires_grad:
            # The objective has set its gradients itself: the penalty's add to them.
            torch.autograd.backward(value - loss.value)
            value = value.detach()
        return Loss(value, metrics)

    def _penalties(self, energy: Energy, batch: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and values of the penalties in use, shape () each."""
        if self.gradient:
            _, e, (gradient,) = grad_in_graph(energy, batch)
            yield "gradient", self.gradient * gradient.square().sum(1).mean()
            if self.energy:
                yield "energy", self.energy * e.square().mean()
        elif self.energy:
            yield "energy", self.energy * energy(batch).square().mean()
        if self.weight:
            weights = [w for w in energy.parameters() if w.requires_grad]
            squares = [w.square().sum() for w in weights]
            yield "weight", self.weight * sum(squares, start=batch.new_zeros(()))
