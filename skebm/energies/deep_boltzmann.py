"""E(v, h1, ...) = -sum_l (b_l'h_l + h_(l+1)'W_l h_l): the deep Boltzmann machine."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.boltzmann import bit_states
from skebm.energies.energy import Energy
from skebm.energies.networks import seeded
from skebm.energies.rbm import RBM
from skebm.energies.units import BernoulliUnits

MOST_LISTED = 10
"""Bits of one half of the hidden layers up to which their states are listed per row."""

N_MEAN_FIELD = 50
"""Mean-field sweeps behind an energy."""


class Halves(NamedTuple):
    """Values of the units, one half of the layers each.

    Attributes
    ----------
    even : Tensor of shape (n, n_even)
        Layers 0 (visible), 2, 4, ... side by side.
    odd : Tensor of shape (n, n_odd)
        Layers 1, 3, ... side by side.
    """

    even: Tensor
    odd: Tensor


class DeepBoltzmann(Energy):
    """The free energy of a deep Boltzmann machine, or its mean-field bound.

    E(h_0, ..., h_L) = -sum_l b_l'h_l - sum_l h_(l+1)'W_l h_l with h_0 = v: layers of
    bits that couple to their neighbours only [1]_. Even and odd layers are the two
    layers of one RBM, so each half is independent given the other. E(v) sums the hidden
    layers out exactly where one half of them has up to 10 bits; else it is the
    variational free energy min_q <E(v, h)>_q - H(q) over independent bits q, which is
    never below it: its density then is a lower bound.

    Parameters
    ----------
    n_hidden : sequence of int, default=(128, 64)
        Bits of the hidden layers, from below.

    Attributes
    ----------
    weights : ParameterList
        W_l of shape (n_(l+1), n_l).
    biases : ParameterList
        b_l of shape (n_l,), the visible one first.
    start : Tensor of shape (n_features,)
        Visible biases of independent columns, where annealing starts.

    References
    ----------
    .. [1] Salakhutdinov, Hinton (2009), Deep Boltzmann machines, AISTATS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import DeepBoltzmann
    >>> machine = DeepBoltzmann((3, 2)).build(4)
    >>> round(machine(torch.zeros(1, 4)).item())  # about -5 log 2
    -3
    """

    start: Tensor

    def __init__(self, n_hidden: Sequence[int] = (128, 64)) -> None:
        super().__init__()
        self.n_hidden = n_hidden

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make random weights of variance 1 / (n_l + n_(l+1)) and zero biases.

        Raises
        ------
        ValueError
            If there is no hidden layer, or an empty one.
        """
        if not self.n_hidden or min(self.n_hidden) < 1:
            raise ValueError(
                f"Got n_hidden={self.n_hidden!r}, but expected one integer >= 1 for "
                "every hidden layer, such as (128, 64)."
            )
        sizes, source = [n_features, *self.n_hidden], seeded(generator)
        self.sizes = sizes
        self.weights = nn.ParameterList()
        for below, above in itertools.pairwise(sizes):
            weight = torch.empty(above, below, device=source.device)
            self.weights.append(
                weight.normal_(0, (below + above) ** -0.5, generator=source)
            )
        zeros = [torch.zeros(size, device=source.device) for size in sizes]
        self.biases = nn.ParameterList(zeros)
        self.register_buffer("start", torch.zeros(n_features, device=source.device))
        return self

    def match(self, v: Tensor) -> Self:
        """Fit the visible biases to rows as if the columns were independent.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.

        Returns
        -------
        self : DeepBoltzmann
            With W = 0 it is the model of independent columns.
        """
        with torch.no_grad():
            self.biases[0].copy_(BernoulliUnits().base_fields(v))
            self.start.copy_(self.biases[0])
        return self

    def folded(self) -> RBM:
        """Return the RBM whose visible units are the even layers, hidden the odd ones.

        Returns
        -------
        RBM
            A copy of the weights without a graph; columns of the data come first.
        """
        with torch.no_grad():
            weight, even, odd = self.halves_of_weights()
            rbm = RBM(len(odd), BernoulliUnits().build(len(even)))
            rbm.weight = nn.Parameter(weight, requires_grad=False)
            rbm.visible_bias = nn.Parameter(even, requires_grad=False)
            rbm.hidden_bias = nn.Parameter(odd, requires_grad=False)
            above = even.new_zeros(len(even) - self.sizes[0])
            rbm.register_buffer("start", torch.cat([self.start, above]))
        return rbm

    def halves_of_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return W (n_odd, n_even) between the halves, and the biases of both.

        Returns
        -------
        weight : Tensor of shape (n_odd, n_even)
            Zero between layers that are not neighbours.
        even : Tensor of shape (n_even,)
            Biases of the even layers.
        odd : Tensor of shape (n_odd,)
            Biases of the odd layers.
        """
        layers = range(len(self.sizes))
        blocks = [
            torch.cat([self._between(i, j) for j in layers[::2]], 1)
            for i in layers[1::2]
        ]
        biases = list(self.biases)
        return torch.cat(blocks), torch.cat(biases[::2]), torch.cat(biases[1::2])

    def _between(self, odd: int, even: int) -> Tensor:
        """Return the weights from an even layer to an odd one."""
        if even == odd - 1:
            below: Tensor = self.weights[even]
            return below
        if even == odd + 1:
            above: Tensor = self.weights[odd].T
            return above
        return torch.zeros(self.sizes[odd], self.sizes[even]).to(self.biases[0])

    def layers(self, halves: Halves) -> list[Tensor]:
        """Return the values of all layers, the visible one first.

        Parameters
        ----------
        halves : Halves
            Values of the units.

        Returns
        -------
        list of Tensor
            One of shape (n, n_l) per layer.
        """
        even = torch.split(halves.even, self.sizes[::2], 1)
        odd = torch.split(halves.odd, self.sizes[1::2], 1)
        return [(odd if i % 2 else even)[i // 2] for i in range(len(self.sizes))]

    def forward(self, x: Tensor) -> Tensor:
        """Return E(v), shape (n,): exact, or where that is too much, its bound."""
        return self.marginal(x) if self.is_exact else self.variational(x)

    @property
    def is_exact(self) -> bool:
        """Whether a call sums the hidden layers out exactly.

        Returns
        -------
        bool
            False where it returns the variational free energy.
        """
        return self._listed_bits <= MOST_LISTED

    @property
    def _listed_bits(self) -> int:
        """The bits of the smaller half of the hidden layers."""
        return min(sum(self.sizes[1::2]), sum(self.sizes[2::2]))

    def marginal(self, v: Tensor) -> Tensor:
        """Return -log sum_h exp(-E(v, h)), listing one half of the hidden layers.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.

        Returns
        -------
        Tensor of shape (n,)
            The exact free energies.
        """
        (weight, even, odd), d = self.halves_of_weights(), self.sizes[0]
        softplus = nn.functional.softplus
        fields = v @ weight[:, :d].T + odd
        if sum(self.sizes[2::2]) <= len(odd):
            above = bit_states(len(even) - d, even)
            inner = fields[:, None] + above @ weight[:, d:].T
            terms = above @ even[d:] + softplus(inner).sum(2)
        else:
            states = bit_states(len(odd), odd)
            rest = softplus(states @ weight[:, d:] + even[d:]).sum(1)
            terms = fields @ states.T + rest
        return -v @ even[:d] - terms.logsumexp(1)

    def mean_field(self, v: Tensor, n_steps: int = N_MEAN_FIELD) -> Halves:
        """Return the means of independent bits near p(h | v).

        The halves in turn, each at its optimum given the other: the bound rises with
        every step.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.
        n_steps : int, default=50
            Sweeps over both halves, >= 1.

        Returns
        -------
        Halves
            v and the means of the hidden layers.
        """
        (weight, even, odd), d = self.halves_of_weights(), self.sizes[0]
        above = torch.full_like(even[d:], 0.5).expand(len(v), -1)
        fields = torch.addmm(odd, v, weight[:, :d].T)
        up, down = weight[:, d:].T, weight[:, d:]
        for _ in range(n_steps):
            middle = torch.addmm(fields, above, up).sigmoid()
            above = torch.addmm(even[d:], middle, down).sigmoid()
        return Halves(torch.cat([v, above], 1), middle)

    def variational(self, v: Tensor, n_steps: int = N_MEAN_FIELD) -> Tensor:
        """Return the variational free energy <E(v, h)>_q - H(q) of the mean field.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.
        n_steps : int, default=50
            Sweeps of `mean_field`.

        Returns
        -------
        Tensor of shape (n,)
            At least `marginal`.
        """
        return self.variational_at(self.mean_field(v, n_steps))

    def variational_at(self, means: Halves) -> Tensor:
        """Return <E(v, h)>_q - H(q) of independent bits q with given means.

        Parameters
        ----------
        means : Halves
            Rows and means of the hidden layers.

        Returns
        -------
        Tensor of shape (n,)
            At least `marginal`.
        """
        weight, b, c = self.halves_of_weights()
        above, odd = means.even[:, self.sizes[0] :], means.odd
        energy = -means.even @ b - (odd * torch.addmm(c, means.even, weight.T)).sum(1)
        return energy - bit_entropy(above) - bit_entropy(odd)


def bit_entropy(mean: Tensor) -> Tensor:
    """Return the entropy of independent bits.

    Parameters
    ----------
    mean : Tensor of shape (n, k)
        Probabilities of ones.

    Returns
    -------
    Tensor of shape (n,)
        In nats.
    """
    zero = 1 - mean
    return -(torch.xlogy(mean, mean) + torch.xlogy(zero, zero)).sum(1)
