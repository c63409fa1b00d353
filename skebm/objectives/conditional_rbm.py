"""The conditional likelihood of an RBM given contexts: exact, or by CD-k."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm.energies import ContextRBM, Energy
from skebm.objectives.objective import Loss, Objective
from skebm.partition.conditional_rbm import annealed_given, log_partition_given
from skebm.samplers.conditional_rbm import listed_states, visible_states

N_CRITERION = 128
"""Held-out rows whose log Z(u) is annealed at a look."""

N_CHAINS = 16
"""Annealed chains for each of them."""


class ConditionalState(nn.Module):
    """What the conditional likelihood keeps: the visible states, the number of rows.

    Parameters
    ----------
    states : Tensor of shape (n_states, d)
        All visible rows there are; none where they are too many to list.
    n_rows : int
        Training rows.
    """

    states: Tensor

    def __init__(self, states: Tensor, n_rows: int) -> None:
        super().__init__()
        self.register_buffer("states", states)
        self.n_rows = n_rows


@dataclass
class ConditionalLikelihood(Objective):
    """Ascent on the mean of log p(v | u).

    With few visible states the loss is the exact
    E(v; u) + log sum_v' exp(-E(v'; u)), differentiated as it stands. Else it is
    contrastive divergence [1]_, E(v; u) - E(v_k; u) with v_k the row after k Gibbs
    steps that start at v and keep u. Either has the logarithm of a normal prior on the
    weights added, per row.

    Parameters
    ----------
    n_steps : int, default=5
        k of CD-k, >= 0.
    most_states : int, default=512
        Visible states up to which the loss is exact, >= 0.
    weight_decay : float, default=1.0
        1 / variance of the prior, >= 0, around the model of independent columns; for
        variances of real columns, the number of extra rows that lie one unit off.

    References
    ----------
    .. [1] Mnih, Larochelle, Hinton (2011), Conditional restricted Boltzmann machines
       for structured output prediction, UAI.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ContextRBM
    >>> from skebm.objectives import ConditionalLikelihood
    >>> energy, g = ContextRBM(1, 0).build(2), torch.Generator().manual_seed(0)
    >>> x, objective = torch.ones(20, 2), ConditionalLikelihood()
    >>> state = objective.init(energy, x, generator=g)
    >>> round(objective(energy, x, state, generator=g).value.item(), 4)  # log 2
    0.6931
    """

    n_steps: int = 5
    most_states: int = 512
    weight_decay: float = 1.0

    def init(
        self, energy: Energy, x: Tensor, *, generator: Generator
    ) -> ConditionalState:
        """Return the visible states, where they can be listed.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        for name in ("n_steps", "most_states", "weight_decay"):
            if not getattr(self, name) >= 0:
                got = getattr(self, name)
                raise ValueError(f"Got {name}={got!r}, but expected a number >= 0.")
        rbm = checked(energy)
        states = visible_states(rbm, self.most_states)
        if states is None:
            states = rbm.machine.weight.new_zeros(0, rbm.layer.n_features)
        return ConditionalState(states.detach(), len(x))

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the loss of rows that hold u, then v."""
        rbm = checked(energy)
        assert isinstance(state, ConditionalState)
        if len(state.states):
            u, _ = rbm.split(batch)
            log_z = rbm.visible_log_weights(u, state.states).logsumexp(1).mean()
            value = rbm(batch).mean() + log_z
        else:
            ends = batch
            with torch.no_grad():
                for _ in range(self.n_steps):
                    ends = rbm.gibbs(ends, generator=generator)
            value = rbm(batch).mean() - rbm(ends).mean()
        penalty = self.weight_decay / state.n_rows * prior(rbm)
        return Loss(value + penalty, {})

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the mean of -log p(v | u) over held-out rows, in nats.

        Where log Z(u) is no short sum, over 128 of them, with 16 annealed chains each.
        """
        rbm = checked(energy)
        with torch.no_grad():
            if listed_states(rbm) is not None:
                u, _ = rbm.split(rows)
                return float((rbm(rows) + log_partition_given(rbm, u)).mean())
            some = rows[:N_CRITERION]
            u, _ = rbm.split(some)
            log_z = annealed_given(rbm, u, N_CHAINS, generator=generator)
            return float((rbm(some) + log_z).mean())


def checked(energy: Energy) -> ContextRBM:
    """Return an energy that is a `ContextRBM`; raise for any other.

    Parameters
    ----------
    energy : Energy
        Built.

    Returns
    -------
    ContextRBM
        An energy that is a `ContextRBM`; raise for any other.
    """
    if not isinstance(energy, ContextRBM):
        raise TypeError(
            f"ConditionalLikelihood needs a ContextRBM, but got "
            f"{type(energy).__name__}. Use RBMLikelihood for an RBM."
        )
    return energy


def prior(rbm: ContextRBM) -> Tensor:
    """Return minus the log density of the prior at weight_decay = 1, shape ().

    Parameters
    ----------
    rbm : ContextRBM
        Built.

    Returns
    -------
    Tensor
        Minus the log density of the prior at weight_decay = 1, shape ().
    """
    machine = rbm.machine
    shift = machine.visible_bias - machine.start
    weights = [
        machine.weight,
        machine.hidden_bias,
        rbm.visible_context,
        rbm.hidden_context,
    ]
    total = shift.square().sum()
    for weight in weights:
        total = total + weight.square().sum()
    for name, weight in machine.layer.named_parameters():
        if name.endswith("log_variance"):
            total = total + (weight + (-weight).exp()).sum()
    return 0.5 * total
