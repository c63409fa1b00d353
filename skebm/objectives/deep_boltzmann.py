"""The likelihood gradient of a deep Boltzmann machine: mean field against chains."""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from skebm._params import refuse
from skebm._torch import bernoulli
from skebm.energies import DeepBoltzmann, Energy
from skebm.energies.deep_boltzmann import Halves
from skebm.objectives.boltzmann import PROBE
from skebm.objectives.centering import follow
from skebm.objectives.objective import Loss, Objective
from skebm.objectives.penalty import adaptive_decay
from skebm.partition import AnnealedGibbs, LayerSum
from skebm.partition.rbm import MOST_BITS, smaller_layer_bits
from skebm.samplers import AnnealedLayers


class LayerMoments(NamedTuple):
    """First and second moments of the layers of a deep Boltzmann machine.

    Attributes
    ----------
    means : list of Tensor
        <h_l>, of shape (n_l,).
    pairs : list of Tensor
        <h_(l+1) h_l'>, of shape (n_(l+1), n_l).
    """

    means: list[Tensor]
    pairs: list[Tensor]


class HalvesState(nn.Module):
    """What the likelihood of a deep Boltzmann machine keeps: chains, moving means.

    Parameters
    ----------
    chains : Tensor of shape (n_chains, n_even)
        Values of the even layers.
    offsets : Halves
        Moving means of the even (n_even,) and of the odd units (n_odd,).
    n_rows : int
        Training rows.
    """

    chains: Tensor
    even_offset: Tensor
    odd_offset: Tensor
    n_rows: Tensor

    def __init__(self, chains: Tensor, offsets: Halves, n_rows: int) -> None:
        super().__init__()
        self.register_buffer("chains", chains)
        self.register_buffer("even_offset", offsets.even)
        self.register_buffer("odd_offset", offsets.odd)
        self.register_buffer("n_rows", torch.tensor(float(n_rows)))


@dataclass
class DeepBoltzmannLikelihood(Objective):
    """Ascent on the mean-field bound of a deep Boltzmann machine's log-likelihood.

    d bound / dW_l = <h_(l+1) h_l'>_q - <h_(l+1) h_l'>_model [1]_: mean-field means
    given the data against Gibbs chains that go on where they ended, even layers and odd
    layers in turn. Gradients are centred: with moving means m, dW_l is that of
    (h_(l+1) - m_(l+1))(h_l - m_l)', which lets all layers learn together, without
    pre-training [2]_. They are set by the call itself; the loss carries none.

    Parameters
    ----------
    n_steps : int, default=1
        Gibbs steps of the chains per call, >= 1.
    n_chains : int, default=100
        Chains, >= 1.
    n_mean_field : int, default=5
        Mean-field sweeps of the positive phase, >= 1.
    centered : bool, default=True
        Whether to centre.
    weight_decay : "auto" or float, default="auto"
        Factor, >= 0, on the sum of |W_l|^2 / 2 per row. "auto" is
        1 / (n (mean W_l^2 + 0.1)) in every layer, as in `RBMLikelihood`.

    Notes
    -----
    The held-out criterion is the negative bound, log Z by a sum over the smaller half
    of the layers or by annealing. Limits: mean field has one mode per row, so the model
    is trained towards hidden layers that are independent given the data.

    References
    ----------
    .. [1] Salakhutdinov, Hinton (2009), Deep Boltzmann machines, AISTATS.
    .. [2] Montavon, Mueller (2012), Deep Boltzmann machines and the centering trick,
       Neural Networks: Tricks of the Trade, Springer.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import DeepBoltzmann
    >>> from skebm.objectives import DeepBoltzmannLikelihood
    >>> x, g = torch.ones(20, 3), torch.Generator().manual_seed(0)
    >>> machine, objective = DeepBoltzmann((4, 2)).build(3), DeepBoltzmannLikelihood()
    >>> state = objective.init(machine, x, generator=g)
    >>> loss = objective(machine, x, state, generator=g)
    >>> [tuple(w.grad.shape) for w in machine.weights]
    [(4, 3), (2, 4)]
    """

    n_steps: int = 1
    n_chains: int = 100
    n_mean_field: int = 5
    centered: bool = True
    weight_decay: str | float = "auto"

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> HalvesState:
        """Return chains at draws of independent bits, and the means of the units.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        machine, decay = checked(energy), self.weight_decay
        whole = "an integer >= 1"
        rules = {
            "n_steps": (self.n_steps >= 1, whole),
            "n_chains": (self.n_chains >= 1, whole),
            "n_mean_field": (self.n_mean_field >= 1, whole),
            "weight_decay": (
                decay == "auto" if isinstance(decay, str) else decay >= 0,
                '"auto" or a number >= 0',
            ),
        }
        refuse(self, rules)
        half = x.new_full((sum(machine.sizes[1:]),), 0.5)
        n_odd = sum(machine.sizes[1::2])
        even = torch.cat([x.mean(0), half[n_odd:]])
        chains = bernoulli(even.repeat(self.n_chains, 1), generator)
        return HalvesState(chains, Halves(even, half[:n_odd].clone()), len(x))

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Set the gradients of the energy's weights; move the chains in train mode."""
        machine = checked(energy)
        assert isinstance(state, HalvesState)
        with torch.no_grad():
            data = machine.mean_field(batch, self.n_mean_field)
            layers = AnnealedLayers(machine.folded())
            even = state.chains
            for _ in range(self.n_steps):
                even = layers.move(even, generator=generator)
            if state.training:
                state.chains.copy_(even)
            model = Halves(even, layers.hidden_fields(even).sigmoid_())
            offsets = self._offsets(machine, state, data)
            positive = layer_moments(machine, data)
            set_gradients(machine, positive, layer_moments(machine, model), offsets)
            self._add_decay(machine, float(state.n_rows))
            back = layers.visible_fields(data.odd)[:, : batch.shape[1]].sigmoid()
            error = (batch - back).square().mean()
            few = Halves(data.even[:PROBE], data.odd[:PROBE])
            loss = machine.variational_at(few).mean()
        return Loss(loss, {"reconstruction_error": error})

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return minus the mean bound of the held-out rows, in nats."""
        machine = checked(energy)
        with torch.no_grad():
            e = float(machine(rows).mean())
        rbm = machine.folded()
        if smaller_layer_bits(rbm) <= MOST_BITS // 2:
            return e + LayerSum()(rbm).value
        annealing = AnnealedGibbs(128, n_temperatures=300, bracket=False)
        ahead, _ = annealing.both_ways(rbm, base=rbm.independent(), generator=generator)
        return e + float(ahead.logsumexp((0, 1))) - math.log(ahead.numel())

    def _offsets(
        self, machine: DeepBoltzmann, state: HalvesState, data: Halves
    ) -> list[Tensor]:
        """Return the offsets of the layers, moved towards the batch in train mode."""
        if not self.centered:
            return [torch.zeros_like(bias) for bias in machine.biases]
        if state.training:
            follow(state.even_offset, data.even.mean(0))
            follow(state.odd_offset, data.odd.mean(0))
        halves = Halves(state.even_offset[None], state.odd_offset[None])
        return [offset[0] for offset in machine.layers(halves)]

    def _add_decay(self, machine: DeepBoltzmann, n_rows: float) -> None:
        """Add the gradient of the penalty to that of the weights."""
        for weight in machine.weights:
            decay = self.weight_decay
            if isinstance(decay, str):
                spread = float(weight.detach().square().mean())
                decay = adaptive_decay(spread, n_rows)
            assert weight.grad is not None
            weight.grad.add_(weight.detach(), alpha=decay)


def checked(energy: Energy) -> DeepBoltzmann:
    """Return an energy that is a deep Boltzmann machine; raise for any other.

    Parameters
    ----------
    energy : Energy
        Built.

    Returns
    -------
    DeepBoltzmann
        An energy that is a deep Boltzmann machine; raise for any other.
    """
    if not isinstance(energy, DeepBoltzmann):
        raise TypeError(
            f"DeepBoltzmannLikelihood needs a DeepBoltzmann, but got "
            f"{type(energy).__name__}. Use RBMLikelihood for an RBM, "
            "ContrastiveDivergence for other energies."
        )
    return energy


def layer_moments(machine: DeepBoltzmann, values: Halves) -> LayerMoments:
    """Return the moments of rows of equal weight.

    Parameters
    ----------
    machine : DeepBoltzmann
        Built.
    values : Halves
        States, or means where the layers of a pair are independent given the row.

    Returns
    -------
    LayerMoments
        Of every layer and of neighbours.
    """
    layers = machine.layers(values)
    neighbors = itertools.pairwise(layers)
    pairs = [above.T @ below / len(below) for below, above in neighbors]
    return LayerMoments([layer.mean(0) for layer in layers], pairs)


def set_gradients(
    machine: DeepBoltzmann,
    data: LayerMoments,
    model: LayerMoments,
    offsets: list[Tensor],
) -> None:
    """Set the gradients of the negative log-likelihood, centred at the offsets.

    Parameters
    ----------
    machine : DeepBoltzmann
        Its weights and biases get gradients.
    data, model : LayerMoments
        Of the positive and of the negative phase.
    offsets : list of Tensor
        m_l of shape (n_l,); zeros give the plain gradient.
    """
    rises = [d - m for d, m in zip(data.means, model.means, strict=True)]
    falls = [-rise for rise in rises]
    for i, weight in enumerate(machine.weights):
        below, above = offsets[i], offsets[i + 1]
        pairs = data.pairs[i] - model.pairs[i]
        pairs -= torch.outer(above, rises[i]) + torch.outer(rises[i + 1], below)
        weight.grad = -pairs
        falls[i] = falls[i] + above @ pairs
        falls[i + 1] = falls[i + 1] + pairs @ below
    for bias, fall in zip(machine.biases, falls, strict=True):
        bias.grad = fall
