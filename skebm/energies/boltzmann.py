"""E(s) = -s'Ls/2 - a's over visible and hidden bits: the Boltzmann machine."""

from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.networks import seeded
from skebm.energies.units import BernoulliUnits

START_SCALE = 0.01
"""Standard deviation of the couplings of visible bits after `build`."""

MOST_HIDDEN = 16
"""Hidden bits, coupled to each other, whose states are listed for every row."""


class Boltzmann(Energy):
    """The free energy of a Boltzmann machine, in which every pair of bits may couple.

    E(s) = -s'Ls/2 - a's over s = (v, h), L symmetric with zero diagonal [1]_; summed
    over the hidden bits h, E(v) = -log sum_h exp(s'Ls/2 + a's). Without hidden bits it
    is E(s) itself, the Ising model in bits: spins 2s - 1 have couplings L/4.

    Parameters
    ----------
    n_hidden : int, default=0
        Hidden bits, in [0, 16].

    Attributes
    ----------
    couplings : Parameter of shape (n_units (n_units - 1) / 2,)
        L above its diagonal, row by row.
    bias : Parameter of shape (n_units,)
        a.
    start : Tensor of shape (n_units,)
        Biases of independent bits, where annealing starts: those of `match`.

    References
    ----------
    .. [1] Ackley, Hinton, Sejnowski (1985), A learning algorithm for Boltzmann
       machines, Cognitive Science 9(1).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Boltzmann
    >>> machine = Boltzmann(n_hidden=1).build(2)
    >>> machine(torch.zeros(1, 2)).item()  # -log 2
    -0.6931...
    """

    couplings: nn.Parameter
    bias: nn.Parameter
    start: Tensor
    pairs: Tensor
    n_features: int

    def __init__(self, n_hidden: int = 0) -> None:
        super().__init__()
        self.n_hidden = n_hidden

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make random couplings, small between visible bits, and zero biases.

        Hidden bits start with couplings of variance 4 / n_units: with small ones they
        are all alike, and that is a saddle of the likelihood.

        Raises
        ------
        ValueError
            If ``n_hidden`` is not in [0, 16].
        """
        if not 0 <= self.n_hidden <= MOST_HIDDEN:
            raise ValueError(
                f"Got n_hidden={self.n_hidden!r}, but Boltzmann sums over the states "
                f"of at most {MOST_HIDDEN} hidden bits. Use RBM or DeepBoltzmann, "
                "whose hidden bits do not couple within a layer."
            )
        self.n_features = n_features
        n = self.n_units
        source = seeded(generator)
        self.register_buffer("pairs", torch.triu_indices(n, n, 1, device=source.device))
        couplings = torch.empty(self.pairs.shape[1], device=source.device)
        couplings.normal_(0, START_SCALE, generator=source)
        couplings[self.pairs[1] >= n_features] *= 2 * n**-0.5 / START_SCALE
        self.couplings = nn.Parameter(couplings)
        self.bias = nn.Parameter(couplings.new_zeros(n))
        self.register_buffer("start", couplings.new_zeros(n))
        return self

    @property
    def n_units(self) -> int:
        """Visible and hidden bits together.

        Returns
        -------
        int
            Visible and hidden bits together.
        """
        return self.n_features + self.n_hidden

    def match(self, v: Tensor) -> Self:
        """Fit the visible biases to rows as if the bits were independent.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.

        Returns
        -------
        self : Boltzmann
            With L = 0 it is the model of independent columns.
        """
        with torch.no_grad():
            self.bias[: self.n_features] = BernoulliUnits().base_fields(v)
            self.start.copy_(self.bias)
        return self

    def matrix(self) -> Tensor:
        """Return L, shape (n_units, n_units).

        Returns
        -------
        Tensor
            L, shape (n_units, n_units).
        """
        i, j = self.pairs
        upper = self.couplings.new_zeros(self.n_units, self.n_units)
        upper = upper.index_put((i, j), self.couplings)
        return upper + upper.T

    def forward(self, x: Tensor) -> Tensor:
        """Return E(v), shape (n,)."""
        d = self.n_features
        if not self.n_hidden:
            return self.joint(x)
        visible = quadratic_form(self.matrix()[:d, :d], self.bias[:d], x)
        return -visible - self.hidden_log_weights(x).logsumexp(1)

    def joint(self, s: Tensor) -> Tensor:
        """Return E(s), shape (n,).

        Parameters
        ----------
        s : Tensor of shape (n, n_units)
            Visible bits, then hidden ones.

        Returns
        -------
        Tensor of shape (n,)
            The energy of each state.
        """
        return -quadratic_form(self.matrix(), self.bias, s)

    def hidden_states(self) -> Tensor:
        """Return all states of the hidden bits, shape (2 ** n_hidden, n_hidden).

        Returns
        -------
        Tensor
            All states of the hidden bits, shape (2 ** n_hidden, n_hidden).
        """
        return bit_states(self.n_hidden, self.bias)

    def hidden_log_weights(self, v: Tensor) -> Tensor:
        """Return log weights of the hidden states, up to terms of v alone.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.

        Returns
        -------
        Tensor of shape (n, 2 ** n_hidden)
            Their softmax is p(h | v), in the order of `hidden_states`.
        """
        d, h, L = self.n_features, self.hidden_states(), self.matrix()
        own = quadratic_form(L[d:, d:], self.bias[d:], h)
        return v @ (L[:d, d:] @ h.T) + own


def quadratic_form(couplings: Tensor, bias: Tensor, s: Tensor) -> Tensor:
    """Return s'Ls/2 + a's.

    Parameters
    ----------
    couplings : Tensor of shape (d, d)
        L.
    bias : Tensor of shape (d,)
        a.
    s : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    Tensor of shape (n,)
        The negative energies.
    """
    return 0.5 * ((s @ couplings) * s).sum(1) + s @ bias


def bit_states(n_bits: int, like: Tensor) -> Tensor:
    """Return all states of some bits.

    Parameters
    ----------
    n_bits : int
        How many bits, >= 0.
    like : Tensor
        Gives type and device.

    Returns
    -------
    Tensor of shape (2 ** n_bits, n_bits)
        The first bit changes fastest.
    """
    index = torch.arange(2**n_bits, device=like.device)
    bits = torch.arange(n_bits, device=like.device)
    return (index[:, None] >> bits & 1).to(like)
