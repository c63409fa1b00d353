"""E(x) = network(x) for rows that are flat images."""

import math
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.features import SequentialEnergy
from skebm.energies.networks import (
    LAST_SCALE,
    activation_named,
    initialize,
    linear,
    perceptron,
    seeded,
)


class Convolutional(SequentialEnergy):
    """A convolutional network as the energy of an image.

    E(x) = w' a(K_k * ... a(K_1 * x)) + b with 3 x 3 kernels K_i of stride 2: each layer
    halves height and width (rounded up). The last layer reads every place, so the
    energy knows where things are; it starts a hundred times smaller than the others.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width) or (channels, height, width) of the images whose flat values,
        channel by channel and line by line, are the rows.
    channels : tuple of int, default=(32, 64)
        Channels of each layer, >= 1.
    activation : {"silu", "softplus", "gelu", "tanh", "elu", "relu"}, default="silu"
        The activation a; smooth ones keep the gradient continuous.
    residual : bool, default=False
        Follow each layer by a residual block of two 3 x 3 kernels of stride 1.
    pooling : bool, default=False
        Halve by the mean of 2 x 2 places after the activation, not by the stride: four
        times the work, and features that a small shift leaves alone.

    Attributes
    ----------
    network : Sequential
        The layers, after `build`.

    Raises
    ------
    ValueError
        From `build`, if the images do not have as many values as rows have columns.

    References
    ----------
    .. [1] Du, Mordatch (2019), Implicit generation and modeling with energy-based
       models, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Convolutional
    >>> energy = Convolutional(image_shape=(8, 8), channels=(8, 16)).build(64)
    >>> energy(torch.zeros(5, 64)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        channels: tuple[int, ...] = (32, 64),
        activation: str = "silu",
        residual: bool = False,
        pooling: bool = False,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.channels = channels
        self.activation = activation
        self.residual = residual
        self.pooling = pooling

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights from ``generator``; None stands for the seed 0."""
        shape = full_shape(self.image_shape, n_features)
        generator = seeded(generator)
        layers: list[nn.Module] = [nn.Unflatten(1, shape)]
        for n_out in self.channels:
            stride = 1 if self.pooling else 2
            layers.append(convolution(shape[0], n_out, stride, generator))
            layers.append(activation_named(self.activation))
            if self.pooling:
                layers.append(nn.AvgPool2d(2, ceil_mode=True))
            if self.residual:
                layers.append(ConvolutionalBlock(n_out, self.activation, generator))
            shape = halved(shape, n_out)
        last = linear(math.prod(shape), 1, generator=generator, scale=LAST_SCALE)
        self.network = nn.Sequential(*layers, nn.Flatten(), last)
        return self


class ConvolutionalBlock(nn.Module):
    """h + V * a(W * h) with 3 x 3 kernels, as large as its input.

    Parameters
    ----------
    n_channels : int
        Channels, >= 1.
    activation : str
        The activation a.
    generator : Generator
        Source of the weights.
    """

    def __init__(self, n_channels: int, activation: str, generator: Generator) -> None:
        super().__init__()
        first = convolution(n_channels, n_channels, 1, generator)
        second = convolution(n_channels, n_channels, 1, generator, scale=0.5)
        self.branch = nn.Sequential(first, activation_named(activation), second)

    def forward(self, h: Tensor) -> Tensor:
        """Return h plus its branch, shape (n, n_channels, height, width)."""
        out: Tensor = h + self.branch(h)
        return out


class Bottleneck(nn.Module):
    """Images to images of the same shape, through a perceptron in between.

    Each 3 x 3 convolution of stride 2 halves height and width (rounded up), a
    perceptron maps the flat result and one more number to as many values, and
    transposed convolutions lead back. The last one starts a hundred times smaller than
    the others: the output starts near 0.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width) of the images.
    channels : tuple of int
        Channels of each convolution, >= 1; () leaves the perceptron alone.
    hidden : tuple of int
        Units of the perceptron's hidden layers, >= 1.
    activation : str
        The activation, one of `ACTIVATIONS`.
    generator : Generator
        Source of the weights; the layers live on its device.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: tuple[int, ...],
        hidden: tuple[int, ...],
        activation: str,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        down: list[nn.Module] = [nn.Unflatten(1, shape)]
        up: list[nn.Module] = [nn.Flatten()]
        small = shape
        for n_out in channels:
            large, small = small, halved(small, n_out)
            down.append(convolution(large[0], n_out, 2, generator))
            down.append(activation_named(activation))
            scale = 1.0 if len(up) > 1 else LAST_SCALE
            up.insert(0, transposed(small, large, generator, scale))
            up.insert(0, activation_named(activation))
        n = math.prod(small)
        self.down = nn.Sequential(*down, nn.Flatten())
        self.middle = perceptron(
            (n + 1, *hidden, n),
            activation,
            generator=generator,
            last_scale=1.0 if channels else LAST_SCALE,
        )
        self.up = nn.Sequential(nn.Unflatten(1, small), *up)

    def forward(self, x: Tensor) -> Tensor:
        """Return images (n, d) for rows (n, d + 1) of images and the other number."""
        h = torch.cat([self.down(x[:, :-1]), x[:, -1:]], 1)
        out: Tensor = self.up(self.middle(h))
        return out


def convolution(
    n_in: int, n_out: int, stride: int, generator: Generator, scale: float = 1.0
) -> nn.Conv2d:
    """Return a 3 x 3 convolution with a border of zeros.

    Parameters
    ----------
    n_in, n_out : int
        Channels, >= 1.
    stride : int
        1 keeps height and width, 2 halves them, rounded up.
    generator : Generator
        Source of the weights; the layer lives on its device.
    scale : float, default=1.0
        Factor on the initial weights.

    Returns
    -------
    Conv2d
        The layer.

    Raises
    ------
    ValueError
        If ``n_out`` is below 1.
    """
    if n_out < 1:
        raise ValueError(
            f"Got a layer of {n_out} channels, but expected every entry of channels "
            ">= 1. Leave the layer out, or give it channels."
        )
    layer = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, device="meta")
    layer = layer.to_empty(device=generator.device)
    initialize(layer, generator, scale)
    return layer


def transposed(
    small: tuple[int, int, int],
    large: tuple[int, int, int],
    generator: Generator,
    scale: float = 1.0,
) -> nn.ConvTranspose2d:
    """Return a 3 x 3 convolution of stride 2 that undoes a halving of the shape.

    Parameters
    ----------
    small, large : tuple of int
        (channels, height, width) of what goes in and of what comes out.
    generator : Generator
        Source of the weights; the layer lives on its device.
    scale : float, default=1.0
        Factor on the initial weights.

    Returns
    -------
    ConvTranspose2d
        The layer.
    """
    # 2 n - 1 places come out of n; an even height or width has one more.
    rest = large[1] - 2 * small[1] + 1, large[2] - 2 * small[2] + 1
    layer = nn.ConvTranspose2d(
        small[0], large[0], 3, 2, padding=1, output_padding=rest, device="meta"
    )
    layer = layer.to_empty(device=generator.device)
    # An output meets a quarter of each kernel; otherwise as in `initialize`.
    bound = scale / math.sqrt(small[0] * 9 / 4)
    for weight in layer.parameters():
        nn.init.uniform_(weight, -bound, bound, generator=generator)
    return layer


def halved(shape: tuple[int, int, int], n_channels: int) -> tuple[int, int, int]:
    """Return the shape after a convolution of stride 2.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width).
    n_channels : int
        Channels that come out.

    Returns
    -------
    tuple of int
        Height and width are halved and rounded up.
    """
    return n_channels, (shape[1] + 1) // 2, (shape[2] + 1) // 2


def full_shape(image_shape: tuple[int, ...], n_features: int) -> tuple[int, int, int]:
    """Return (channels, height, width), checked against the columns.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width) or (channels, height, width).
    n_features : int
        Columns of the rows.

    Returns
    -------
    tuple of int
        The three sizes.

    Raises
    ------
    ValueError
        If there are not two or three sizes, or they do not multiply to n_features.
    """
    if len(image_shape) not in (2, 3) or min(image_shape) < 1:
        raise ValueError(
            f"Got image_shape={image_shape!r}, but expected (height, width) or "
            "(channels, height, width), each >= 1."
        )
    if math.prod(image_shape) != n_features:
        raise ValueError(
            f"Got rows of {n_features} columns, but image_shape={image_shape!r} has "
            f"{math.prod(image_shape)} values. Pass the shape whose flat values the "
            "rows hold."
        )
    n_channels, height, width = (1, 1, *image_shape)[-3:]
    return n_channels, height, width
