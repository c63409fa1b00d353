"""Layers with weights drawn from a given generator."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from skebm._torch import make_generator

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
