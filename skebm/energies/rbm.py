"""E(v) = A(v) - b'phi(v) - sum_j log(1 + exp(c_j + W_j phi(v))): the RBM."""

from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._torch import bernoulli
from skebm.energies.energy import Energy
from skebm.energies.networks import seeded
from skebm.energies.units import BernoulliUnits, Units

START_SCALE = 0.01
"""Standard deviation of the weights after `build`."""


class RBM(Energy):
    """The free energy of a restricted Boltzmann machine.

    E(v, h) = A(v) - b'phi(v) - c'h - h'W phi(v) with hidden bits h [1]_; summed over
    h, E(v) = A(v) - b'phi(v) - sum_j log(1 + exp(c_j + W_j phi(v))). A and phi belong
    to the units: A = 0 and phi(v) = v for bits.

    Parameters
    ----------
    n_hidden : int, default=256
        Hidden bits, >= 1.
    units : Units or None, default=None
        The visible layer; None means `BernoulliUnits`.

    Attributes
    ----------
    weight : Parameter of shape (n_hidden, n_statistics)
        W.
    visible_bias : Parameter of shape (n_statistics,)
        b.
    hidden_bias : Parameter of shape (n_hidden,)
        c.
    start : Tensor of shape (n_statistics,)
        Fields of independent columns, where annealing starts: those of `match`.

    References
    ----------
    .. [1] Smolensky (1986), Information processing in dynamical systems: foundations
       of harmony theory, Parallel Distributed Processing 1, MIT Press.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM
    >>> rbm = RBM(n_hidden=3).build(2)
    >>> rbm(torch.zeros(1, 2)).item()  # -3 log 2
    -2.0794...
    """

    weight: nn.Parameter
    visible_bias: nn.Parameter
    hidden_bias: nn.Parameter
    start: Tensor

    def __init__(self, n_hidden: int = 256, units: Units | None = None) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        self.units = units

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make small random weights and zero biases."""
        if self.units is None:
            self._bits = BernoulliUnits()
        self.layer.build(n_features)
        source = seeded(generator)
        weight = torch.empty(
            self.n_hidden, self.layer.n_statistics, device=source.device
        )
        self.weight = nn.Parameter(weight.normal_(0, START_SCALE, generator=source))
        self.visible_bias = nn.Parameter(weight.new_zeros(self.layer.n_statistics))
        self.hidden_bias = nn.Parameter(weight.new_zeros(self.n_hidden))
        self.register_buffer("start", weight.new_zeros(self.layer.n_statistics))
        return self

    @property
    def layer(self) -> Units:
        """The visible layer in use.

        Returns
        -------
        Units
            The visible layer in use.
        """
        return self._bits if self.units is None else self.units

    def match(self, v: Tensor) -> Self:
        """Fit the visible layer alone to rows.

        Parameters
        ----------
        v : Tensor of shape (n, d)
            Rows; NaN entries are left out.

        Returns
        -------
        self : RBM
            With W = 0 it is the model of independent columns.
        """
        with torch.no_grad():
            self.visible_bias.copy_(self.layer.match(v).base_fields(v))
            self.start.copy_(self.visible_bias)
        return self

    def independent(self) -> "RBM":
        """Return the model of independent columns that annealing starts from.

        Returns
        -------
        RBM
            Its visible biases are ``start``; one hidden bit without weights.
        """
        base = RBM(1, self.units).requires_grad_(False)
        base.visible_bias = nn.Parameter(self.start.clone(), requires_grad=False)
        return base

    def forward(self, x: Tensor) -> Tensor:
        """Return E(v), shape (n,)."""
        phi = self.layer.statistics(x)
        hidden = nn.functional.softplus(self.hidden_fields(phi)).sum(1)
        return self.layer.self_energies(x).sum(1) - phi @ self.visible_bias - hidden

    def joint(self, v: Tensor, h: Tensor) -> Tensor:
        """Return E(v, h), shape (n,).

        Parameters
        ----------
        v : Tensor of shape (n, d)
            Visible rows.
        h : Tensor of shape (n, n_hidden)
            Hidden bits.

        Returns
        -------
        Tensor of shape (n,)
            The energy of each pair.
        """
        phi = self.layer.statistics(v)
        visible = self.layer.self_energies(v).sum(1) - phi @ self.visible_bias
        return visible - (h * self.hidden_fields(phi)).sum(1)

    def hidden_fields(self, phi: Tensor) -> Tensor:
        """Return c + W phi for phi (n, n_statistics), shape (n, n_hidden).

        Parameters
        ----------
        phi : Tensor
            Visible statistics.

        Returns
        -------
        Tensor
            C + W phi for phi (n, n_statistics), shape (n, n_hidden).
        """
        return torch.addmm(self.hidden_bias, phi, self.weight.T)

    def visible_fields(self, h: Tensor) -> Tensor:
        """Return b + W'h for h (n, n_hidden), shape (n, n_statistics).

        Parameters
        ----------
        h : Tensor
            Hidden bits.

        Returns
        -------
        Tensor
            B + W'h for h (n, n_hidden), shape (n, n_statistics).
        """
        return torch.addmm(self.visible_bias, h, self.weight)

    def hidden_mean(self, v: Tensor) -> Tensor:
        """Return p(h = 1 | v), shape (n, n_hidden).

        Parameters
        ----------
        v : Tensor
            Rows of the layer.

        Returns
        -------
        Tensor
            P(h = 1 | v), shape (n, n_hidden).
        """
        p: Tensor = self.hidden_fields(self.layer.statistics(v)).sigmoid()
        return p

    @torch.no_grad()
    def gibbs(
        self, v: Tensor, *, temperature: float | Tensor = 1.0, generator: Generator
    ) -> Tensor:
        """Draw h given v, then v given h.

        Parameters
        ----------
        v : Tensor of shape (n, d)
            Visible rows.
        temperature : float or Tensor of shape (n, 1), default=1.0
            T > 0: a step that leaves exp(-E(v, h) / T) invariant.
        generator : Generator
            Source of randomness, on the device of v.

        Returns
        -------
        Tensor of shape (n, d)
            New rows.
        """
        hidden = self.hidden_fields(self.layer.statistics(v)) / temperature
        fields = self.visible_fields(bernoulli(hidden.sigmoid(), generator))
        return self.layer.sample(fields, temperature=temperature, generator=generator)
