"""E(x) = w'phi(x) + b: energies that are a linear layer over learned features."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Self

from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.module import built_by
from skebm.energies.networks import LAST_SCALE, linear, seeded


class FeatureEnergy(Energy):
    """An energy that ends in a linear layer: E(x) = w'phi(x) + b.

    Classifiers put a layer of their own, one output per class, on phi.

    References
    ----------
    .. [1] Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky (2020), Your classifier
       is secretly an energy based model and you should treat it like one, ICLR.
    """

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return phi(x).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, n_outputs)
            What the last layer reads.
        """

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Width of phi, once built.

        Returns
        -------
        int
            >= 1.
        """


class SequentialEnergy(FeatureEnergy):
    """A sequence of layers, the last of them linear with one output.

    ``build`` of a subclass sets ``network``.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.
    """

    network: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, shape (n,)."""
        e: Tensor = self.network(x).squeeze(1)
        return e

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer reads, shape (n, n_outputs)."""
        out: Tensor = self.network[:-1](x)
        return out

    @property
    def n_outputs(self) -> int:
        """Units that the last layer reads."""
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        return last.in_features


class Readout(FeatureEnergy):
    """Any torch module as features with a linear layer on top.

    E(x) = w'm(x) + b, where m is what ``factory(n_features)`` returns. It is built as
    in `Module`: the weights depend on the seed alone.

    Parameters
    ----------
    factory : callable
        Maps the number of columns to a module that maps (n, d) to (n, k), each row by
        itself (no batch normalisation). A function or class of a module, if the energy
        is to be pickled; a lambda is not.

    Attributes
    ----------
    network : Module
        The user's module, after `build`.
    last : Linear
        w and b.

    Raises
    ------
    ValueError
        If the factory returns something else, or the network another shape.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Readout
    >>> def factory(n_features):
    ...     return torch.nn.Sequential(torch.nn.Linear(n_features, 8), torch.nn.Tanh())
    >>> Readout(factory).build(3).features(torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """

    network: nn.Module
    last: nn.Linear

    def __init__(self, factory: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.factory = factory

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Call the factory, and the network once on two rows of zeros."""
        generator = seeded(generator)
        widths = []
        self.network = built_by(
            self.factory,
            n_features,
            generator,
            probe=lambda network, rows: widths.append(_width(network(rows))),
        )
        self.last = linear(widths[0], 1, generator=generator, scale=LAST_SCALE)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return w'm(x) + b, shape (n,)."""
        e: Tensor = self.last(self.features(x)).squeeze(1)
        return e

    def features(self, x: Tensor) -> Tensor:
        """Return m(x), shape (n, n_outputs)."""
        out: Tensor = self.network(x)
        return out

    @property
    def n_outputs(self) -> int:
        """Width of m(x)."""
        return self.last.in_features


def _width(features: Tensor) -> int:
    """Return the width of a network's output for two rows; raise for other shapes."""
    if features.ndim != 2 or len(features) != 2:
        raise ValueError(
            f"Got output of shape {tuple(features.shape)} from the network for 2 rows, "
            "but expected (2, k): k features per row. End the network with Flatten()."
        )
    return features.shape[1]
