"""E(x, x'): how badly two rows go together."""

from abc import abstractmethod
from typing import Self

from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.networks import activation_named, perceptron, seeded


class PairEnergy(Energy):
    """An energy of pairs; low means that the two rows go together.

    A pair is a row of 2 d columns, x and x' side by side. Given x, a set of candidates
    has p(x'_j | x) = softmax_j(-E(x, x'_j)): with E = -q'k / T these are the weights of
    attention, at temperature T, of a query over keys [1]_.

    References
    ----------
    .. [1] Ramsauer, Schafl, Lehner et al. (2021), Hopfield networks is all you need,
       ICLR.
    """

    @abstractmethod
    def table(self, left: Tensor, right: Tensor) -> Tensor:
        """Return E(x, x') of every left row with every right row.

        Parameters
        ----------
        left : Tensor of shape (n, d)
            Rows x.
        right : Tensor of shape (m, d)
            Rows x'.

        Returns
        -------
        Tensor of shape (n, m)
            Its diagonal, where n = m, is the energy of the pairs.
        """


class Similarity(PairEnergy):
    """The cosine of two embedded rows: E(x, x') = -f(x)'f(x') / T with |f(x)| = 1.

    f(x) = P(a(R(x))) / |P(a(R(x)))| with perceptrons R, which makes the representation
    that is kept, and P, which is for the comparison alone [1]_.

    Parameters
    ----------
    n_components : int, default=256
        Units of the representation, >= 1.
    hidden : tuple of int, default=(256, 256)
        Units of the layers before it, >= 1.
    n_projection : int, default=256
        Units of the hidden layer of P and of f, >= 1.
    temperature : float, default=0.2
        T > 0.
    activation : {"relu", "silu", "softplus", "gelu", "tanh", "elu"}, default="relu"
        The activation a.

    Attributes
    ----------
    encoder, head : Sequential
        R and P.

    References
    ----------
    .. [1] Chen, Kornblith, Norouzi, Hinton (2020), A simple framework for contrastive
       learning of visual representations, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Similarity
    >>> x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    >>> energy = Similarity(temperature=0.5).build(6)
    >>> energy(torch.cat([x, x], 1)).round().tolist()
    [-2.0, -2.0, -2.0, -2.0, -2.0]
    """

    encoder: nn.Sequential
    head: nn.Sequential

    def __init__(
        self,
        n_components: int = 256,
        hidden: tuple[int, ...] = (256, 256),
        n_projection: int = 256,
        temperature: float = 0.2,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.n_components = n_components
        self.hidden = hidden
        self.n_projection = n_projection
        self.temperature = temperature
        self.activation = activation

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights for pairs of ``n_features`` columns, an even number."""
        if n_features % 2:
            raise ValueError(
                f"Got n_features={n_features}, but pairs side by side have an even "
                "number of columns. Pass twice the columns of a row."
            )
        source, projection = seeded(generator), (self.n_projection, self.n_projection)
        encoder = (n_features // 2, *self.hidden, self.n_components)
        head = (self.n_components, *projection)
        self.encoder, self.head = (
            perceptron(widths, self.activation, generator=source, last_scale=1.0)
            for widths in (encoder, head)
        )
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return E(x, x') of pairs side by side, shape (n,)."""
        left, right = x.chunk(2, 1)
        return -(self.embed(left) * self.embed(right)).sum(1) / self.temperature

    def table(self, left: Tensor, right: Tensor) -> Tensor:
        """Return E(x, x') of every left row with every right row.

        Parameters
        ----------
        left : Tensor of shape (n, d)
            Rows x.
        right : Tensor of shape (m, d)
            Rows x'.

        Returns
        -------
        Tensor of shape (n, m)
            In [-1 / T, 1 / T].
        """
        return -(self.embed(left) @ self.embed(right).T) / self.temperature

    def represent(self, x: Tensor) -> Tensor:
        """Return a(R(x)).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, n_components)
            The representation.
        """
        units: Tensor = activation_named(self.activation)(self.encoder(x))
        return units

    def embed(self, x: Tensor) -> Tensor:
        """Return f(x).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, n_projection)
            Of length one.
        """
        return nn.functional.normalize(self.head(self.represent(x)), dim=1)
