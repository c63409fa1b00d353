"""The likelihood and the pseudo-likelihood of a Boltzmann machine."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from skebm._params import refuse
from skebm._torch import bernoulli
from skebm.energies import Boltzmann, Energy
from skebm.objectives.centering import follow
from skebm.objectives.objective import Loss, Objective
from skebm.objectives.penalty import adaptive_decay
from skebm.partition import AnnealedUnitGibbs
from skebm.partition.pseudo import pseudo_log_likelihood_of_bits
from skebm.samplers import AnnealedUnits
from skebm.samplers.state_law import MOST_UNITS, law_of

CHAINS = "exact", "persistent"

PROBE = 8
"""Rows of a batch on which the loss is read: it trains nothing."""


class Moments(NamedTuple):
    """First and second moments of the units of a Boltzmann machine.

    Attributes
    ----------
    mean : Tensor of shape (n_units,)
        <s>.
    second : Tensor of shape (n_units, n_units)
        <s s'>; its diagonal is not read.
    """

    mean: Tensor
    second: Tensor


class BoltzmannState(nn.Module):
    """What the likelihood of a Boltzmann machine keeps: chains and moving means.

    Parameters
    ----------
    chains : Tensor of shape (n_chains, n_units)
        States of the chains.
    offset : Tensor of shape (n_units,)
        Moving means of the units.
    n_rows : int
        Training rows.
    """

    chains: Tensor
    offset: Tensor
    n_rows: Tensor

    def __init__(self, chains: Tensor, offset: Tensor, n_rows: int) -> None:
        super().__init__()
        self.register_buffer("chains", chains)
        self.register_buffer("offset", offset)
        self.register_buffer("n_rows", torch.tensor(float(n_rows)))


@dataclass
class BoltzmannLikelihood(Objective):
    """Ascent on the mean log-likelihood of a Boltzmann machine.

    d log p / dL_ij = <s_i s_j>_data - <s_i s_j>_model and d log p / da = <s>_data -
    <s>_model [1]_; hidden bits of the data have their exact conditional law. Gradients
    are centred as in `RBMLikelihood`: with moving means m, dL is that of
    (s - m)(s - m)', and da = <s>_data - <s>_model - dL m. They are set by the call
    itself; the loss carries none.

    Parameters
    ----------
    chains : {"exact", "persistent"}, default="exact"
        The model's moments: sums over all states, up to 20 units, or means over Gibbs
        chains that go on where they ended (PCD [2]_).
    n_steps : int, default=1
        Sweeps of the chains per call, >= 1.
    n_chains : int, default=100
        Chains, >= 1.
    centered : bool, default=True
        Whether to centre.
    weight_decay : "auto" or float, default="auto"
        Factor, >= 0, on half the sum of L_ij^2 over pairs, per row. "auto" is
        1 / (n (mean L^2 + 0.1)), as in `RBMLikelihood`, the mean over pairs of visible
        bits and over the others by themselves.

    Notes
    -----
    The held-out criterion is the negative log-likelihood, log Z by a sum up to 20 units
    and else by annealing. Limits: where the data never have s_i = s_j = 1, the penalty
    alone keeps L_ij finite.

    References
    ----------
    .. [1] Ackley, Hinton, Sejnowski (1985), A learning algorithm for Boltzmann
       machines, Cognitive Science 9(1).
    .. [2] Tieleman (2008), Training restricted Boltzmann machines using approximations
       to the likelihood gradient, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Boltzmann
    >>> from skebm.objectives import BoltzmannLikelihood
    >>> x, g = torch.ones(20, 3), torch.Generator().manual_seed(0)
    >>> machine, objective = Boltzmann().build(3), BoltzmannLikelihood()
    >>> state = objective.init(machine, x, generator=g)
    >>> loss = objective(machine, x, state, generator=g)
    >>> machine.couplings.grad.shape
    torch.Size([3])
    """

    chains: str = "exact"
    n_steps: int = 1
    n_chains: int = 100
    centered: bool = True
    weight_decay: str | float = "auto"

    def init(
        self, energy: Energy, x: Tensor, *, generator: Generator
    ) -> BoltzmannState:
        """Return chains at draws of independent bits, and the means of the rows.

        Raises
        ------
        ValueError
            If a parameter is out of range, or there are more than 20 units and
            ``chains="exact"``.
        """
        machine = checked(energy)
        self._refuse_bad_parameters(machine)
        hidden = x.new_full((machine.n_hidden,), 0.5)
        offset = torch.cat([x.mean(0), hidden])
        chains = bernoulli(offset.repeat(self.n_chains, 1), generator)
        return BoltzmannState(chains, offset, len(x))

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Set the gradients of the energy's weights; move the chains in train mode."""
        machine = checked(energy)
        assert isinstance(state, BoltzmannState)
        with torch.no_grad():
            data = data_moments(machine, batch)
            model = self._model_moments(machine, state, generator)
            offset = torch.zeros_like(data.mean)
            if self.centered:
                if state.training:
                    follow(state.offset, data.mean)
                offset = state.offset
            set_gradients(machine, data, model, offset)
            assert machine.couplings.grad is not None
            machine.couplings.grad += self._penalty(machine, state)
            loss = machine(batch[:PROBE]).mean()
            gap = (data.mean - model.mean).abs().max()
        return Loss(loss, {"moment_gap": gap})

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the mean negative log-likelihood of the held-out rows, in nats."""
        machine = checked(energy)
        with torch.no_grad():
            e = float(machine(rows).mean())
        if machine.n_units <= MOST_UNITS:
            return e + float(law_of(machine).log_partition)
        annealing = AnnealedUnitGibbs(128, n_temperatures=100, bracket=False)
        ahead, _ = annealing.both_ways(machine, generator=generator)
        return e + float(ahead.logsumexp((0, 1))) - math.log(ahead.numel())

    def _model_moments(
        self, machine: Boltzmann, state: BoltzmannState, generator: Generator
    ) -> Moments:
        """Return the moments of the model, and keep the chains."""
        if self.chains == "exact":
            mean, second = law_of(machine).moments()
            return Moments(mean.to(machine.bias), second.to(machine.bias))
        units, s = AnnealedUnits(machine), state.chains
        for _ in range(self.n_steps):
            s = units.move(s, generator=generator)
        if state.training:
            state.chains.copy_(s)
        return Moments(s.mean(0), s.T @ s / len(s))

    def _penalty(self, machine: Boltzmann, state: BoltzmannState) -> Tensor:
        """Return the gradient of the penalty, shape (n_pairs,)."""
        couplings = machine.couplings.detach()
        if not isinstance(self.weight_decay, str):
            return self.weight_decay * couplings
        square, hidden = couplings.square(), machine.pairs[1] >= machine.n_features
        spread = torch.where(hidden, square[hidden].mean(), square[~hidden].mean())
        return couplings * adaptive_decay(spread, state.n_rows)

    def _refuse_bad_parameters(self, machine: Boltzmann) -> None:
        """Raise if a parameter is out of its range."""
        decay = self.weight_decay
        small = self.chains != "exact" or machine.n_units <= MOST_UNITS
        rules = {
            "chains": (
                self.chains in CHAINS and small,
                f"one of {CHAINS}, the first one up to {MOST_UNITS} units. There are "
                f"{machine.n_units}; BoltzmannMachine(objective='pcd') runs chains",
            ),
            "n_steps": (self.n_steps >= 1, "an integer >= 1"),
            "n_chains": (self.n_chains >= 1, "an integer >= 1"),
            "weight_decay": (
                decay == "auto" if isinstance(decay, str) else decay >= 0,
                '"auto" or a number >= 0',
            ),
        }
        refuse(self, rules)


@dataclass
class PseudoLikelihood(Objective):
    """Ascent on the mean pseudo-log-likelihood of a fully visible Boltzmann machine.

    The loss is -sum_i log p(s_i | the other columns) per row: a convex function whose
    minimum converges to the true couplings where the model is right [1]_. It needs
    neither log Z nor chains.

    Parameters
    ----------
    weight_decay : "auto" or float, default="auto"
        Factor, >= 0, on half the sum of L_ij^2 over pairs, per row. "auto" is
        1 / (n (mean L^2 + 0.1)).

    References
    ----------
    .. [1] Besag (1975), Statistical analysis of non-lattice data, The Statistician
       24(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Boltzmann
    >>> from skebm.objectives import PseudoLikelihood
    >>> x, g = torch.ones(20, 3), torch.Generator().manual_seed(0)
    >>> machine, objective = Boltzmann().build(3), PseudoLikelihood()
    >>> state = objective.init(machine, x, generator=g)
    >>> round(objective(machine, x, state, generator=g).value.item(), 1)
    2.1
    """

    weight_decay: str | float = "auto"

    def init(
        self, energy: Energy, x: Tensor, *, generator: Generator
    ) -> BoltzmannState:
        """Return the number of rows.

        Raises
        ------
        ValueError
            If the machine has hidden bits, or the decay is out of range.
        """
        machine, decay = checked(energy), self.weight_decay
        if machine.n_hidden:
            raise ValueError(
                f"PseudoLikelihood needs a machine without hidden bits; got "
                f"n_hidden={machine.n_hidden}. Use BoltzmannLikelihood."
            )
        fits = decay == "auto" if isinstance(decay, str) else decay >= 0
        refuse(self, {"weight_decay": (fits, '"auto" or a number >= 0')})
        return BoltzmannState(x[:0], x.mean(0), len(x))

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return minus the mean pseudo-log-likelihood of the rows, and the penalty."""
        machine = checked(energy)
        assert isinstance(state, BoltzmannState)
        loss = -pseudo_log_likelihood_of_bits(machine, batch).mean()
        squares = machine.couplings.square()
        decay = self.weight_decay
        if isinstance(decay, str):
            spread = float(squares.detach().mean())
            decay = adaptive_decay(spread, float(state.n_rows))
        return Loss(loss + 0.5 * decay * squares.sum(), {})

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return minus the mean pseudo-log-likelihood of the held-out rows."""
        with torch.no_grad():
            found = pseudo_log_likelihood_of_bits(checked(energy), rows).mean()
        return -float(found)


def checked(energy: Energy) -> Boltzmann:
    """Return an energy that is a Boltzmann machine; raise for any other.

    Parameters
    ----------
    energy : Energy
        Built.

    Returns
    -------
    Boltzmann
        An energy that is a Boltzmann machine; raise for any other.
    """
    if not isinstance(energy, Boltzmann):
        raise TypeError(
            f"Got {type(energy).__name__}, but this objective needs a Boltzmann. Use "
            "RBMLikelihood for an RBM, ContrastiveDivergence for other energies."
        )
    return energy


def data_moments(machine: Boltzmann, v: Tensor) -> Moments:
    """Return the moments of rows with their hidden bits, these summed exactly.

    Parameters
    ----------
    machine : Boltzmann
        Built.
    v : Tensor of shape (n, n_features)
        Rows.

    Returns
    -------
    Moments
        Of visible bits, then hidden ones.
    """
    n = len(v)
    if not machine.n_hidden:
        return Moments(v.mean(0), v.T @ v / n)
    states = machine.hidden_states()
    p = machine.hidden_log_weights(v).softmax(1)
    h, share = p @ states, p.mean(0)
    cross = v.T @ h / n
    above = torch.cat([v.T @ v / n, cross], 1)
    below = torch.cat([cross.T, states.T @ (share[:, None] * states)], 1)
    return Moments(torch.cat([v.mean(0), h.mean(0)]), torch.cat([above, below]))


def set_gradients(
    machine: Boltzmann, data: Moments, model: Moments, offset: Tensor
) -> None:
    """Set the gradients of the negative log-likelihood, centred at ``offset``.

    Parameters
    ----------
    machine : Boltzmann
        Its couplings and biases get gradients.
    data, model : Moments
        Of the positive and of the negative phase.
    offset : Tensor of shape (n_units,)
        m; zeros give the plain gradient.
    """
    rise = data.mean - model.mean
    outer = offset[:, None] * rise
    pairs = data.second - model.second - outer - outer.T
    pairs.fill_diagonal_(0.0)
    i, j = machine.pairs
    machine.couplings.grad = -pairs[i, j]
    machine.bias.grad = pairs @ offset - rise
