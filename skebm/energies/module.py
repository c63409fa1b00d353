"""E(x) = network(x) for a network that the user brings."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.networks import seeded


class Module(Energy):
    """Any torch module as an energy.

    E(x) = m(x), where m is what ``factory(n_features)`` returns. The factory runs in
    `build`, with torch's global generators seeded from the generator given and put back
    afterwards: the weights depend on the seed alone, and the global state stays as it
    was.

    Parameters
    ----------
    factory : callable
        Maps the number of columns to a module that maps (n, d) to (n,) or (n, 1), each
        row by itself (no batch normalisation). A function or class of a module, if the
        energy is to be pickled; a lambda is not.

    Attributes
    ----------
    network : Module
        The user's module, after `build`.

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
    >>> from skebm.energies import Module
    >>> def factory(n_features):
    ...     return torch.nn.Linear(n_features, 1)
    >>> energy = Module(factory).build(3, generator=torch.Generator().manual_seed(0))
    >>> energy(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    network: nn.Module

    def __init__(self, factory: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.factory = factory

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Call the factory, and the network once on two rows of zeros."""
        generator = seeded(generator)
        self.network = built_by(self.factory, n_features, generator, probe=self._probe)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, shape (n,)."""
        e: Tensor = self.network(x)
        if e.shape == (len(x), 1):
            return e.squeeze(1)
        if e.shape != (len(x),):
            raise ValueError(
                f"Got output of shape {tuple(e.shape)} from the network for rows of "
                f"shape {tuple(x.shape)}, but expected ({len(x)},) or ({len(x)}, 1): "
                "one energy per row. End the network with Linear(..., 1)."
            )
        return e

    def _probe(self, network: nn.Module, rows: Tensor) -> None:
        """Meet a wrong shape now."""
        self.network = network
        self(rows)


def built_by(
    factory: Callable[[int], nn.Module],
    n_features: int,
    generator: Generator,
    *,
    probe: Callable[[nn.Module, Tensor], object],
) -> nn.Module:
    """Return the module that a user's factory makes, with weights from a generator.

    Parameters
    ----------
    factory : callable
        Maps the number of columns to a module.
    n_features : int
        Columns.
    generator : Generator
        Seeds torch's global generators while the factory runs; the module ends on its
        device.
    probe : callable
        Called with the module, in eval mode, and two rows of zeros.

    Returns
    -------
    Module
        As made, with the state of lazy layers too.

    Raises
    ------
    ValueError
        If the factory returns something else.
    """
    device = generator.device
    drawn = torch.randint(2**62, (), generator=generator, device=device)
    seed = int(drawn)
    # Empty until CUDA is in use, and seeding all devices would start it.
    accelerators = torch.cuda.default_generators
    with torch.random.fork_rng(list(range(len(accelerators)))), torch.no_grad():
        for source in (torch.default_generator, *accelerators):
            source.manual_seed(seed)
        network = factory(n_features)
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"Got {type(network).__name__} from factory={factory!r}, but "
                "expected a torch.nn.Module that maps rows to energies. Return one."
            )
        network = network.to(device)
        weights = (p for p in network.parameters() if p.is_floating_point())
        dtype = next((weight.dtype for weight in weights), None)
        training = network.training
        network.eval()
        # Lazy layers are made here, from the forked generator.
        probe(network, torch.zeros(2, n_features, dtype=dtype, device=device))
        return network.train(training)
