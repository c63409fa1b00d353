"""p(v) = sum_h p(v | h1) p(h1 | h2) ... p(top RBM): the deep belief network."""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._torch import bernoulli
from skebm.energies.energy import Energy
from skebm.energies.networks import seeded
from skebm.energies.rbm import RBM

N_DRAWS = 50
"""Draws of the hidden layers per row behind an energy."""


class DeepBelief(Energy):
    """The variational free energy of a deep belief network.

    p(v, h_1, ..., h_L) = p(v | h_1) ... p(h_(L-2) | h_(L-1)) p(h_(L-1), h_L): an RBM of
    the top two layers and directed layers of bits below it [1]_. With the bottom-up
    conditionals q of the RBMs that made the layers and K draws h ~ q(h | v),

    E(v) = -log (1 / K) sum_k p*(v, h_k) / q(h_k | v),

    p* without the normaliser of the top RBM: in expectation over the draws, which are
    the same for every row, an upper bound on the free energy [2]_. With one hidden
    layer it is the RBM, exactly.

    Parameters
    ----------
    n_hidden : sequence of int, default=(64, 256)
        Bits of the hidden layers, from below.

    Attributes
    ----------
    machines : ModuleList of RBM
        From below; all but the last are read downwards as p(h_(l-1) | h_l) and upwards
        as q(h_l | h_(l-1)).

    References
    ----------
    .. [1] Hinton, Osindero, Teh (2006), A fast learning algorithm for deep belief nets,
       Neural Computation 18(7).
    .. [2] Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import DeepBelief
    >>> network = DeepBelief((3, 2)).build(4)
    >>> network(torch.zeros(1, 4)).shape
    torch.Size([1])
    """

    machines: nn.ModuleList

    def __init__(self, n_hidden: Sequence[int] = (64, 256)) -> None:
        super().__init__()
        self.n_hidden = n_hidden

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make RBMs with small random weights, and the noise of the draws.

        Raises
        ------
        ValueError
            If there is no hidden layer, or an empty one.
        """
        if not self.n_hidden or min(self.n_hidden) < 1:
            raise ValueError(
                f"Got n_hidden={self.n_hidden!r}, but expected one integer >= 1 for "
                "every hidden layer, such as (64, 256)."
            )
        source, below = seeded(generator), n_features
        self.machines = nn.ModuleList()
        for i, size in enumerate(self.n_hidden):
            self.machines.append(RBM(size).build(below, generator=source))
            noise = torch.rand(N_DRAWS, size, generator=source, device=source.device)
            self.register_buffer(f"noise{i}", noise)
            below = size
        return self

    @property
    def top(self) -> RBM:
        """The RBM of the top two layers, whose log Z is that of the network.

        Returns
        -------
        RBM
            The RBM of the top two layers, whose log Z is that of the network.
        """
        return self._machine(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return E(v), shape (n,)."""
        return math.log(N_DRAWS) - self.log_weights(x).logsumexp(1)

    def variational(self, v: Tensor) -> Tensor:
        """Return the plain variational free energy, the mean of -log p*(v, h) / q.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.

        Returns
        -------
        Tensor of shape (n,)
            At least `forward`.
        """
        return -self.log_weights(v).mean(1)

    def log_weights(self, v: Tensor) -> Tensor:
        """Return log p*(v, h) / q(h | v) of the draws of the hidden layers.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.

        Returns
        -------
        Tensor of shape (n, 50)
            The top layer is summed out; the others are drawn with fixed noise.
        """
        below = v[:, None].expand(-1, N_DRAWS, -1).flatten(0, 1)
        total = below.new_zeros(len(below))
        softplus = nn.functional.softplus
        for i in range(len(self.machines) - 1):
            rbm = self._machine(i)
            up = rbm.hidden_fields(below)
            noise: Tensor = getattr(self, f"noise{i}")
            h = (up.sigmoid().view(len(v), N_DRAWS, -1) > noise).to(v).flatten(0, 1)
            down = rbm.visible_fields(h)
            generated = (below * down - softplus(down)).sum(1)
            recognized = (h * up - softplus(up)).sum(1)
            total = total + generated - recognized
            below = h
        top: Tensor = self.top(below)
        return (total - top).view(len(v), N_DRAWS)

    def up(self, v: Tensor) -> list[Tensor]:
        """Return the means of all hidden layers, each given those of the one below.

        Parameters
        ----------
        v : Tensor of shape (n, n_features)
            Rows.

        Returns
        -------
        list of Tensor
            One of shape (n, n_l) per hidden layer.
        """
        means = []
        for i in range(len(self.machines)):
            v = self._machine(i).hidden_mean(v)
            means.append(v)
        return means

    def down(self, h: Tensor, *, generator: Generator) -> Tensor:
        """Draw the first hidden layer from the layer below the top one.

        Parameters
        ----------
        h : Tensor of shape (n, n_(L-1))
            Bits of the visible layer of the top RBM.
        generator : Generator
            Source of randomness, on the device of h.

        Returns
        -------
        Tensor of shape (n, n_1)
            Bits; with one hidden layer, h itself.
        """
        for i in range(len(self.machines) - 2, 0, -1):
            fields = self._machine(i).visible_fields(h)
            h = bernoulli(fields.sigmoid(), generator)
        return h

    def _machine(self, i: int) -> RBM:
        """Return the i-th RBM from below."""
        rbm = self.machines[i]
        assert isinstance(rbm, RBM)
        return rbm
