"""E(v; u): a restricted Boltzmann machine whose biases a context shifts."""

import copy
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._torch import bernoulli
from skebm.energies.energy import Energy
from skebm.energies.networks import seeded
from skebm.energies.rbm import RBM
from skebm.energies.units import Units

START_SCALE = 0.3
"""Standard deviation of W and G after `build`: large enough to leave the point where
what only several columns say together has no gradient."""


class ContextRBM(Energy):
    """The free energy of a conditional restricted Boltzmann machine.

    E(v, h; u) = A(v) - (b + F u)'phi(v) - (c + G u)'h - h'W phi(v) with hidden bits h
    and a context u [1]_ [2]_; summed over h,
    E(v; u) = A(v) - (b + F u)'phi(v) - sum_j log(1 + exp(c_j + G_j u + W_j phi(v))).
    p(v | u) = exp(-E(v; u)) / Z(u). Rows hold u, then v.

    Parameters
    ----------
    n_context : int, default=0
        Leading columns that are u, >= 0.
    n_hidden : int, default=10
        Hidden bits, >= 0; without any, log p(v | u) is a generalised linear model.
    units : Units or None, default=None
        The visible layer, with A and phi; None means `BernoulliUnits`.

    Attributes
    ----------
    machine : RBM
        W, b and c: the machine at u = 0.
    visible_context : Parameter of shape (n_statistics, n_context)
        F.
    hidden_context : Parameter of shape (n_hidden, n_context)
        G.

    References
    ----------
    .. [1] Taylor, Hinton, Roweis (2006), Modeling human motion using binary latent
       variables, NeurIPS.
    .. [2] Mnih, Larochelle, Hinton (2011), Conditional restricted Boltzmann machines
       for structured output prediction, UAI.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ContextRBM
    >>> energy = ContextRBM(n_context=2, n_hidden=3).build(5)
    >>> energy(torch.zeros(1, 5)).item()  # -3 log 2
    -2.0794...
    """

    machine: RBM
    visible_context: nn.Parameter
    hidden_context: nn.Parameter

    def __init__(
        self, n_context: int = 0, n_hidden: int = 10, units: Units | None = None
    ) -> None:
        super().__init__()
        self.n_context = n_context
        self.n_hidden = n_hidden
        self.units = units

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make random W and G, and zeros.

        Raises
        ------
        ValueError
            If no column is left for v.
        """
        n_visible = n_features - self.n_context
        if n_visible < 1:
            raise ValueError(
                f"Got rows of {n_features} columns with n_context={self.n_context}, "
                "but expected at least one more column for v."
            )
        source = seeded(generator)
        self.machine = RBM(self.n_hidden, self.units).build(n_visible, generator=source)
        W = self.machine.weight
        F = W.new_zeros(self.layer.n_statistics, self.n_context)
        self.visible_context = nn.Parameter(F)
        self.hidden_context = nn.Parameter(W.new_empty(self.n_hidden, self.n_context))
        with torch.no_grad():
            for weight in (W, self.hidden_context):
                weight.normal_(0, START_SCALE, generator=source)
        return self

    @property
    def layer(self) -> Units:
        """The visible layer in use.

        Returns
        -------
        Units
            The visible layer in use.
        """
        return self.machine.layer

    def match(self, v: Tensor) -> Self:
        """Fit the visible layer alone to rows.

        Parameters
        ----------
        v : Tensor of shape (n, d)
            Visible rows, without their contexts.

        Returns
        -------
        self : ContextRBM
            With F = 0 and W = 0 it is the model of independent columns.
        """
        self.machine.match(v)
        return self

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return u (n, n_context) and v (n, d) of rows that hold both.

        Parameters
        ----------
        x : Tensor
            Rows.

        Returns
        -------
        tuple[Tensor, Tensor]
            U (n, n_context) and v (n, d) of rows that hold both.
        """
        return x[:, : self.n_context], x[:, self.n_context :]

    def biases(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return b + F u, shape (n, n_statistics), and c + G u, shape (n, n_hidden).

        Parameters
        ----------
        u : Tensor
            Contexts.

        Returns
        -------
        tuple[Tensor, Tensor]
            B + F u, shape (n, n_statistics), and c + G u, shape (n, n_hidden).
        """
        visible = torch.addmm(self.machine.visible_bias, u, self.visible_context.T)
        hidden = torch.addmm(self.machine.hidden_bias, u, self.hidden_context.T)
        return visible, hidden

    def at(self, u: Tensor) -> RBM:
        """Return the machine of one context.

        Parameters
        ----------
        u : Tensor of shape (n_context,)
            The context.

        Returns
        -------
        RBM
            A copy with biases b + F u and c + G u, without gradients.
        """
        rbm = copy.deepcopy(self.machine).requires_grad_(False)
        visible, hidden = self.biases(u[None])
        rbm.visible_bias.copy_(visible[0].detach())
        rbm.hidden_bias.copy_(hidden[0].detach())
        return rbm

    def forward(self, x: Tensor) -> Tensor:
        """Return E(v; u), shape (n,)."""
        u, v = self.split(x)
        visible, hidden = self.biases(u)
        phi = self.layer.statistics(v)
        summed = nn.functional.softplus(hidden + phi @ self.machine.weight.T).sum(1)
        return self.layer.self_energies(v).sum(1) - (phi * visible).sum(1) - summed

    def joint(self, x: Tensor, h: Tensor) -> Tensor:
        """Return E(v, h; u), shape (n,).

        Parameters
        ----------
        x : Tensor of shape (n, n_context + d)
            Contexts and visible rows.
        h : Tensor of shape (n, n_hidden)
            Hidden bits.

        Returns
        -------
        Tensor of shape (n,)
            The energy of each triple.
        """
        u, v = self.split(x)
        visible, hidden = self.biases(u)
        phi = self.layer.statistics(v)
        field = hidden + phi @ self.machine.weight.T
        own = self.layer.self_energies(v).sum(1)
        return own - (phi * visible).sum(1) - (h * field).sum(1)

    def gibbs(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Draw h given u and v, then v given u and h.

        Parameters
        ----------
        x : Tensor of shape (n, n_context + d)
            Contexts and visible rows.
        generator : Generator
            Source of randomness, on the device of x.

        Returns
        -------
        Tensor of shape (n, n_context + d)
            The same contexts with new rows.
        """
        u, v = self.split(x)
        visible, hidden = self.biases(u)
        field = hidden + self.layer.statistics(v) @ self.machine.weight.T
        h = bernoulli(field.sigmoid(), generator)
        field = visible + h @ self.machine.weight
        return torch.cat([u, self.layer.sample(field, generator=generator)], 1)

    def visible_log_weights(self, u: Tensor, v: Tensor) -> Tensor:
        """Return -E(v; u) of every context with every visible row.

        Parameters
        ----------
        u : Tensor of shape (n, n_context)
            Contexts.
        v : Tensor of shape (m, d)
            Visible rows; where they are all there are, the sum over them of
            exp(-E(v; u)) is Z(u).

        Returns
        -------
        Tensor of shape (n, m)
            Differentiable by the weights.
        """
        visible, hidden = self.biases(u)
        phi = self.layer.statistics(v)
        field = hidden[:, None] + phi @ self.machine.weight.T
        own = self.layer.self_energies(v).sum(1)
        return visible @ phi.T + nn.functional.softplus(field).sum(2) - own

    def hidden_log_weights(self, u: Tensor, h: Tensor) -> Tensor:
        """Return log sum_v exp(-E(v, h; u)) of every context with every hidden row.

        Parameters
        ----------
        u : Tensor of shape (n, n_context)
            Contexts.
        h : Tensor of shape (m, n_hidden)
            Hidden bits; over all of them the sum of the exponentials is Z(u).

        Returns
        -------
        Tensor of shape (n, m)
            Differentiable by the weights.
        """
        visible, hidden = self.biases(u)
        fields = (visible[:, None] + h @ self.machine.weight).flatten(0, 1)
        psi = self.layer.log_normalizers(fields).sum(1).view(len(u), len(h))
        return hidden @ h.T + psi
