"""E(x; sigma): energies of the data blurred by Gaussian noise of any level."""

from abc import abstractmethod
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.convolutional import Bottleneck, full_shape
from skebm.energies.energy import Energy
from skebm.energies.networks import perceptron, seeded


class NoiseConditional(Energy):
    """A family of energies E(x; s), one for the density of x + s * noise at each s.

    Denoising objectives train all levels at once; annealed samplers walk from a large s
    to a small one. Called without a level the energy is read at ``sigma``.

    Attributes
    ----------
    sigma : float
        Level at which the energy is read, in units of the (scaled) columns, > 0.

    References
    ----------
    .. [1] Song, Ermon (2019), Generative modeling by estimating gradients of the data
       distribution, NeurIPS.
    """

    sigma: float
    network: nn.Module

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return E(x; sigma), shape (n,); sigma of shape (n,) or (), > 0."""

    def at(self, sigma: float) -> "AtLevel":
        """Return the energy at another level; it shares the weights.

        Parameters
        ----------
        sigma : float
            Noise level, > 0.

        Returns
        -------
        AtLevel
            E(x) = E(x; sigma).
        """
        return AtLevel(self, sigma)

    def _build_network(
        self,
        n_outputs: int,
        n_features: int,
        hidden: tuple[int, ...],
        activation: str,
        generator: Generator | None,
    ) -> Self:
        """Make a network of (x, log sigma) and check the level."""
        check_level(self.sigma)
        self.network = perceptron(
            (n_features + 1, *hidden, n_outputs),
            activation,
            generator=seeded(generator),
        )
        return self

    def _levels(self, x: Tensor, sigma: Tensor | None) -> Tensor:
        """Return one level per row, shape (n, 1)."""
        level = x.new_full((), self.sigma) if sigma is None else sigma.to(x)
        return level.expand(len(x))[:, None]


class AtLevel(Energy):
    """E(x) = E_part(x; sigma): a noise-conditional energy read at one level.

    Parameters
    ----------
    part : NoiseConditional
        The family of energies; its weights are shared, not copied.
    sigma : float
        Noise level, > 0.

    References
    ----------
    .. [1] Song, Ermon (2019), Generative modeling by estimating gradients of the data
       distribution, NeurIPS.

    Examples
    --------
    >>> from skebm.energies import NoisyMLP
    >>> NoisyMLP(hidden=(64,)).at(0.5)
    AtLevel(part=NoisyMLP(hidden=(64,), sigma=0.1, activation='silu'), sigma=0.5)
    """

    def __init__(self, part: NoiseConditional, sigma: float) -> None:
        super().__init__()
        self.part = part
        self.sigma = sigma

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the family."""
        check_level(self.sigma)
        self.part.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return E_part(x; sigma), shape (n,)."""
        e: Tensor = self.part(x, x.new_full((), self.sigma))
        return e


class Denoiser(NoiseConditional):
    """Half the squared distance of a row to its denoised self, in units of the noise.

    E(x; s) = 0.5 |x - f(x, s)|^2 / s^2, where f is a perceptron of x / sqrt(1 + s^2)
    and log s. E >= 0, and it is low where f leaves x as it is: on the data. With the
    same objective this form tells strange rows apart far better than a scalar network.
    f starts near 0, so E starts near the Gaussian of sd s, and expects columns that are
    centred and on a unit scale.

    Rows that are images get a convolutional f: 3 x 3 kernels of stride 2 lead down to
    the perceptron, and as many transposed ones back up to the image.

    Parameters
    ----------
    hidden : tuple of int, default=(128, 128)
        Units of each hidden layer, >= 1.
    sigma : float, default=0.1
        Level s at which the energy is read, > 0, in units of the (scaled) columns;
        typical 0.1 to 1, and 1 to 3 for images. A larger one sees coarser structure.
    activation : {"silu", "softplus", "gelu", "tanh", "elu", "relu"}, default="silu"
        Denoising objectives need two derivatives, which "relu" and "elu" lack.
    image_shape : tuple of int or None, default=None
        (height, width) or (channels, height, width) of the images whose flat values,
        channel by channel and line by line, are the rows; None: rows are no images.
    channels : tuple of int, default=(16, 32)
        Channels of each convolution, >= 1; ignored where there are no images.

    Attributes
    ----------
    network : Module
        f as a map of (x / sqrt(1 + s^2), log s), after `build`.

    Raises
    ------
    ValueError
        From `build`, if the images do not have as many values as rows have columns.

    Notes
    -----
    Limits: strange rows that are simpler than the data, such as images with less in
    them, are denoised well too and get a low energy.

    References
    ----------
    .. [1] Vincent (2011), A connection between score matching and denoising
       autoencoders, Neural Computation 23(7).
    .. [2] Salimans, Ho (2021), Should EBMs model the energy or the score?, ICLR
       workshop on energy-based models.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Denoiser
    >>> energy = Denoiser(hidden=(32,), sigma=0.1).build(2)
    >>> x = torch.ones(5, 2)
    >>> torch.equal(energy(x), energy.at(0.1)(x))
    True
    >>> of_images = Denoiser(hidden=(32,), sigma=2.0, image_shape=(8, 8)).build(64)
    >>> of_images.denoise(torch.zeros(5, 64)).shape
    torch.Size([5, 64])
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (128, 128),
        sigma: float = 0.1,
        activation: str = "silu",
        image_shape: tuple[int, ...] | None = None,
        channels: tuple[int, ...] = (16, 32),
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.sigma = sigma
        self.activation = activation
        self.image_shape = image_shape
        self.channels = channels

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights from ``generator``; None stands for the seed 0."""
        if self.image_shape is None:
            return self._build_network(
                n_features, n_features, self.hidden, self.activation, generator
            )
        check_level(self.sigma)
        self.network = Bottleneck(
            full_shape(self.image_shape, n_features),
            self.channels,
            self.hidden,
            self.activation,
            generator=seeded(generator),
        )
        return self

    def denoise(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return f(x, s).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        sigma : Tensor of shape (n,) or (), default=None
            Noise levels s > 0; None reads at ``self.sigma``.

        Returns
        -------
        Tensor of shape (n, d)
            x with the noise that f sees taken away.
        """
        s = self._levels(x, sigma)
        denoised: Tensor = self.network(torch.cat([x * shrinkage(s), s.log()], 1))
        return denoised

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return 0.5 |x - f(x, s)|^2 / s^2, shape (n,)."""
        removed = (x - self.denoise(x, sigma)) / self._levels(x, sigma)
        return 0.5 * removed.square().sum(1)


class NoisyMLP(NoiseConditional):
    """A scalar perceptron for every noise level, around a Gaussian.

    E(x; s) = 0.5 |x|^2 / (1 + s^2) + g(x / sqrt(1 + s^2), log s) with a perceptron g
    that starts near a constant: E starts at the exact energy of standard normal columns
    plus noise of sd s, and is integrable at every level as long as g grows more slowly
    than the Gaussian, as it does with any activation of bounded slope.

    Parameters
    ----------
    hidden : tuple of int, default=(128, 128)
        Units of each hidden layer, >= 1.
    sigma : float, default=0.1
        Level s at which the energy is read, in units of the (scaled) columns, > 0.
    activation : {"silu", "softplus", "gelu", "tanh", "elu", "relu"}, default="silu"
        Denoising objectives need two derivatives, which "relu" and "elu" lack.

    Attributes
    ----------
    network : Sequential
        The perceptron g, after `build`.

    References
    ----------
    .. [1] Song, Ermon (2019), Generative modeling by estimating gradients of the data
       distribution, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import NoisyMLP
    >>> energy = NoisyMLP(hidden=(32,), sigma=0.1).build(2)
    >>> energy(torch.zeros(3, 2), torch.tensor([0.1, 1.0, 10.0])).shape
    torch.Size([3])
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (128, 128),
        sigma: float = 0.1,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.sigma = sigma
        self.activation = activation

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights from ``generator``; None stands for the seed 0."""
        return self._build_network(
            1, n_features, self.hidden, self.activation, generator
        )

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return E(x; s), shape (n,)."""
        s = self._levels(x, sigma)
        z = x * shrinkage(s)
        g: Tensor = self.network(torch.cat([z, s.log()], 1)).squeeze(1)
        return 0.5 * z.square().sum(1) + g


def shrinkage(sigma: Tensor) -> Tensor:
    """Return 1 / sqrt(1 + s^2), which brings unit columns plus noise to unit scale.

    Parameters
    ----------
    sigma : Tensor
        Noise levels s.

    Returns
    -------
    Tensor
        One factor per level.
    """
    return (1 + sigma.square()).rsqrt()


def check_level(sigma: float) -> None:
    """Refuse a noise level that is not a positive number.

    Parameters
    ----------
    sigma : float
        The level.

    Raises
    ------
    ValueError
        If it is 0, negative or not a number.
    """
    if not sigma > 0:
        raise ValueError(
            f"Got sigma={sigma!r}, but expected a noise level > 0. Pass the sd of the "
            "noise in units of the scaled columns, for instance 0.1."
        )
