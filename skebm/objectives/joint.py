"""-log p(y | x) + w L(x): a classifier and an energy trained at once."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn

from skebm._torch import normal_like
from skebm.energies import Energy, JointEnergy
from skebm.objectives.objective import HELD_OUT_BATCH, Loss, Objective


class JointState(nn.Module):
    """What the joint likelihood keeps: how many rows, another objective's state.

    Parameters
    ----------
    n_rows : int
        Training rows.
    generative : Module
        What the objective of p(x) keeps; empty where there is none.
    """

    n_rows: Tensor

    def __init__(self, n_rows: int, generative: nn.Module) -> None:
        super().__init__()
        self.register_buffer("n_rows", torch.tensor(float(n_rows)))
        self.generative = generative


@dataclass
class JointLikelihood(Objective):
    """Ascent on log p(y | x) and descent on an objective of E(x) [1]_.

    L = -mean_i sum_y t_iy log p(y | x_i + s u_i) + w L_objective + (alpha / 2n) sum W^2
    with targets t_iy >= 0, u_i ~ N(0, I) and W the weights, intercepts left out. A row
    without a label has targets 0: it trains E(x) alone.

    Parameters
    ----------
    objective : Objective or None, default=None
        What trains E(x) = -log sum_y exp(-E(x, y)); None trains p(y | x) alone.
    weight : float, default=1.0
        w >= 0.
    alpha : float, default=0.0
        Strength of the penalty on weights, >= 0.
    n_given : int, default=0
        Columns with log p(x, y) that come with the rows: see Notes.
    noise : float, default=0.0
        s >= 0, in training only: near rows get near labels [2]_.

    Notes
    -----
    A row is x, then ``n_given`` columns, then one target per class. Training rows of a
    `JointPatterns` bring their log p(x, y) under the other patterns, so that none
    recognises itself.

    References
    ----------
    .. [1] Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky (2020), Your classifier
       is secretly an energy based model and you should treat it like one, ICLR.
    .. [2] Bishop (1995), Training with noise is equivalent to Tikhonov regularization,
       Neural Computation 7(1).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import JointNetwork
    >>> from skebm.objectives import JointLikelihood
    >>> rows, g = torch.tensor([[0.0, 1.0, 0.0]]), torch.Generator().manual_seed(0)
    >>> energy, objective = JointNetwork().build(1), JointLikelihood()
    >>> state = objective.init(energy, rows, generator=g)
    >>> round(objective(energy, rows, state, generator=g).value.item(), 4)  # log 2
    0.6931
    """

    objective: Objective | None = None
    weight: float = 1.0
    alpha: float = 0.0
    n_given: int = 0
    noise: float = 0.0

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> JointState:
        """Return the number of rows and what the objective keeps.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        if not all(v >= 0 for v in (self.weight, self.alpha, self.noise)):
            raise ValueError(
                f"Got weight={self.weight!r}, alpha={self.alpha!r} and "
                f"noise={self.noise!r}, but expected numbers >= 0."
            )
        if self.objective is None:
            return JointState(len(x), nn.Module())
        rows = self.argument(energy, x)
        kept = self.objective.init(energy, rows, generator=generator)
        return JointState(len(x), kept)

    def argument(self, energy: Energy, rows: Tensor) -> Tensor:
        """Return x."""
        return self._split(_checked(energy), rows)[0]

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the loss; the penalty is left out in eval mode."""
        joint, kept = _checked(energy), cast(JointState, state)
        x, given, targets = self._split(joint, batch)
        seen = x
        if self.noise and state.training:
            seen = x + self.noise * normal_like(x, generator)
        value = -(targets * joint.log_proba(seen, given)).sum(1).mean()
        metrics = {"label_loss": value.detach()}
        if self.objective is not None and self.weight:
            loss = self.objective(joint, x, kept.generative, generator=generator)
            value = value + self.weight * loss.value
            metrics |= {f"generative_{k}": v for k, v in loss.metrics.items()}
        if self.alpha and state.training:
            weights = [w for w in energy.parameters() if w.requires_grad and w.ndim > 1]
            squares = sum(
                (w.square().sum() for w in weights), start=value.new_zeros(())
            )
            value = value + 0.5 * self.alpha / kept.n_rows * squares
        return Loss(value, metrics)

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the mean of -log p(y | x) over the held-out rows, in nats."""
        joint, total = _checked(energy), 0.0
        with torch.no_grad():
            for batch in torch.split(rows, HELD_OUT_BATCH):
                x, given, targets = self._split(joint, batch)
                total -= float((targets * joint.log_proba(x, given)).sum())
        return total / len(rows)

    def _split(
        self, energy: JointEnergy, rows: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return x, what is given of log p(x, y), and targets."""
        k = energy.n_classes
        d = rows.shape[1] - k - self.n_given
        given = rows[:, d : d + self.n_given] if self.n_given else None
        return rows[:, :d], given, rows[:, -k:]


def _checked(energy: Energy) -> JointEnergy:
    """Return an energy of rows and labels; raise for any other."""
    if not isinstance(energy, JointEnergy):
        raise TypeError(
            f"JointLikelihood needs a JointEnergy, but got {type(energy).__name__}. "
            "Use JointNetwork, JointTilted or JointPatterns."
        )
    return energy
