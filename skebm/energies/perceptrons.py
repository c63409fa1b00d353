"""E(x) = network(x): perceptrons, plain and residual."""

from typing import Self

from torch import Generator, Tensor, nn

from skebm.energies.features import SequentialEnergy
from skebm.energies.networks import (
    perceptron,
    seeded,
)


class MLP(SequentialEnergy):
    """A multilayer perceptron as the energy.

    E(x) = w' a(W_k ... a(W_1 x + b_1) ... + b_k) + b with the activation a. The last
    layer starts a hundred times smaller than the others, so that the energy starts near
    a constant; hidden weights start as in He et al. (2015).

    Parameters
    ----------
    hidden : tuple of int, default=(128, 128)
        Units of each hidden layer, >= 1; () is a linear energy.
    activation : {"silu", "softplus", "gelu", "tanh", "elu", "relu"}, default="silu"
        Score matching needs two derivatives, which "relu" and "elu" lack.
    spectral_norm : bool, default=False
        Divide every weight matrix by max(1, its largest singular value). Then
        |E(x) - E(x')| <= c^k |x - x'| for k hidden layers, where c is the activation's
        largest slope: 1, but 1.10 for "silu" and 1.13 for "gelu". Multiply the energy
        (``5.0 * MLP(spectral_norm=True)``) to allow a steeper one. One singular value
        decomposition per layer and call: about four times slower.

    Attributes
    ----------
    network : Sequential
        The layers, after `build`.

    Notes
    -----
    exp(-E) alone need not have a finite integral; add a `Bowl`, or tilt a base density
    (`Tilted`).

    References
    ----------
    .. [1] Du, Mordatch (2019), Implicit generation and modeling with energy-based
       models, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP
    >>> energy = MLP(hidden=(32,)).build(2, generator=torch.Generator().manual_seed(0))
    >>> energy(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (128, 128),
        activation: str = "silu",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.activation = activation
        self.spectral_norm = spectral_norm

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights from ``generator``; None stands for the seed 0."""
        self.network = perceptron(
            (n_features, *self.hidden, 1),
            self.activation,
            generator=seeded(generator),
            spectral_norm=self.spectral_norm,
        )
        return self


class ResidualBlock(nn.Module):
    """h + V a(W h + b) + c, as wide as its input.

    Parameters
    ----------
    width : int
        Units.
    activation : str
        The activation a, one of `ACTIVATIONS`.
    generator : Generator
        Source of the weights.
    scale : float
        Factor on the initial V and c.
    spectral_norm : bool
        Bound the spectral norms of V and W by 1.
    """

    def __init__(
        self,
        width: int,
        activation: str,
        *,
        generator: Generator,
        scale: float,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        self.branch = perceptron(
            (width, width, width),
            activation,
            generator=generator,
            last_scale=scale,
            spectral_norm=spectral_norm,
        )

    def forward(self, h: Tensor) -> Tensor:
        """Return h plus its branch, shape (n, width)."""
        out: Tensor = h + self.branch(h)
        return out


class ResidualMLP(SequentialEnergy):
    """A perceptron of residual blocks as the energy.

    h_0 = W x + b, h_{i+1} = h_i + V_i a(W_i h_i + b_i) + c_i and
    E(x) = w' a(h_k) + c. The blocks start small, so that depth costs no gradient, and
    the last layer starts a hundred times smaller: E starts near a constant.

    Parameters
    ----------
    width : int, default=128
        Units of every layer, >= 1.
    n_blocks : int, default=3
        Residual blocks k, >= 0.
    activation : {"silu", "softplus", "gelu", "tanh", "elu", "relu"}, default="silu"
        The activation a.
    spectral_norm : bool, default=False
        Divide every weight matrix by max(1, its largest singular value). Then
        |E(x) - E(x')| <= c (1 + c)^k |x - x'|, where c is the activation's largest
        slope: 1, but 1.10 for "silu" and 1.13 for "gelu".

    Attributes
    ----------
    network : Sequential
        The layers, after `build`.

    References
    ----------
    .. [1] He, Zhang, Ren, Sun (2016), Identity mappings in deep residual networks,
       ECCV.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ResidualMLP
    >>> energy = ResidualMLP(width=16, n_blocks=2).build(3)
    >>> energy(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        width: int = 128,
        n_blocks: int = 3,
        activation: str = "silu",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.n_blocks = n_blocks
        self.activation = activation
        self.spectral_norm = spectral_norm

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights from ``generator``; None stands for the seed 0."""
        generator = seeded(generator)
        ends = perceptron(
            (n_features, self.width, 1),
            self.activation,
            generator=generator,
            spectral_norm=self.spectral_norm,
        )
        blocks = [
            ResidualBlock(
                self.width,
                self.activation,
                generator=generator,
                scale=0.5 / self.n_blocks,
                spectral_norm=self.spectral_norm,
            )
            for _ in range(self.n_blocks)
        ]
        first, *rest = ends.children()
        self.network = nn.Sequential(first, *blocks, *rest)
        return self
