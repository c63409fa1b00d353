"""E(x) = network(x): perceptrons, with weights drawn from a given generator."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._torch import make_generator
from skebm.energies.energy import Energy

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "relu": nn.ReLU,
}
"""Activations by name; all but "relu" and "elu" are smooth."""

LAST_SCALE = 1e-2
"""Factor on the initial weights of a last layer: the energy starts near a constant."""


def activation_named(name: str) -> nn.Module:
    """Return a new activation.

    Parameters
    ----------
    name : str
        One of `ACTIVATIONS`.

    Returns
    -------
    Module
        The activation, which maps each number by itself.

    Raises
    ------
    ValueError
        If the name is not known.
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"Got activation={name!r}, but expected one of {sorted(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]()


def seeded(generator: Generator | None) -> Generator:
    """Return the generator, or one with seed 0 where none is given.

    Parameters
    ----------
    generator : Generator or None
        Source of initial weights; new layers live on its device.

    Returns
    -------
    Generator
        Never the global one.
    """
    return make_generator(0) if generator is None else generator


def initialize(
    layer: nn.Linear | nn.Conv2d, generator: Generator, scale: float = 1.0
) -> None:
    """Draw the weights and biases of a layer, in place.

    Both are uniform in +- scale / sqrt(n_in), a third of the variance that keeps
    signals at their size [1]_: a smooth start generalises better on small tables.

    Parameters
    ----------
    layer : Linear or Conv2d
        The layer, with biases.
    generator : Generator
        Source of the weights, on the layer's device.
    scale : float, default=1.0
        Factor on both.

    References
    ----------
    .. [1] LeCun, Bottou, Orr, Mueller (1998), Efficient BackProp, Neural networks:
       tricks of the trade, Springer.
    """
    n_in = layer.weight[0].numel()
    bound = scale / math.sqrt(n_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


class SpectralLinear(nn.Linear):
    """y = W x / max(1, |W|_2) + b: a linear layer that stretches no distance.

    |W|_2 is the largest singular value, computed exactly in each call, so that there
    is no running estimate to store and equal weights give equal bits.

    References
    ----------
    .. [1] Miyato, Kataoka, Koyama, Yoshida (2018), Spectral normalization for
       generative adversarial networks, ICLR.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, shape (..., n_out)."""
        norm = torch.linalg.matrix_norm(self.weight, 2).clamp(min=1.0)
        return nn.functional.linear(input, self.weight / norm, self.bias)


def linear(
    n_in: int,
    n_out: int,
    *,
    generator: Generator,
    scale: float = 1.0,
    spectral_norm: bool = False,
) -> nn.Linear:
    """Return a linear layer with weights from `initialize`.

    Parameters
    ----------
    n_in, n_out : int
        Widths, >= 1.
    generator : Generator
        Source of the weights; the layer lives on its device.
    scale : float, default=1.0
        Factor on the initial weights.
    spectral_norm : bool, default=False
        Return a `SpectralLinear`.

    Returns
    -------
    Linear
        The layer; the global random state is untouched.
    """
    kind = SpectralLinear if spectral_norm else nn.Linear
    # Layers of the meta device draw nothing from the global generator.
    layer = kind(n_in, n_out, device="meta").to_empty(device=generator.device)
    initialize(layer, generator, scale)
    return layer


def perceptron(
    widths: Sequence[int],
    activation: str,
    *,
    generator: Generator,
    last_scale: float = LAST_SCALE,
    spectral_norm: bool = False,
) -> nn.Sequential:
    """Return linear layers with an activation between each two.

    Parameters
    ----------
    widths : sequence of int
        Input, hidden and output widths, at least two, each >= 1.
    activation : str
        One of `ACTIVATIONS`.
    generator : Generator
        Source of the weights; the layers live on its device.
    last_scale : float, default=0.01
        Factor on the initial weights of the last layer.
    spectral_norm : bool, default=False
        Bound the spectral norm of every weight matrix by 1.

    Returns
    -------
    Sequential
        Maps (..., widths[0]) to (..., widths[-1]).

    Raises
    ------
    ValueError
        If a width is below 1 or the activation is not known.
    """
    if min(widths) < 1:
        raise ValueError(
            f"Got layers of widths {tuple(widths)}, but expected every width >= 1. "
            "Leave the layer out, or give it units."
        )
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths[:-1]):
        hidden = linear(n_in, n_out, generator=generator, spectral_norm=spectral_norm)
        layers += [hidden, activation_named(activation)]
    last = linear(
        widths[-2],
        widths[-1],
        generator=generator,
        scale=last_scale,
        spectral_norm=spectral_norm,
    )
    return nn.Sequential(*layers, last)


class MLP(Energy):
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

    network: nn.Sequential

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

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, shape (n,)."""
        e: Tensor = self.network(x).squeeze(1)
        return e


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


class ResidualMLP(Energy):
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

    network: nn.Sequential

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

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, shape (n,)."""
        e: Tensor = self.network(x).squeeze(1)
        return e
