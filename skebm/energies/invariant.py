"""E(g x) = E(x): energies that a group of rearrangements leaves unchanged."""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.networks import perceptron, seeded

Element = tuple[int, ...]
"""Where the columns come from: j for column j, ~j (that is -1 - j) for its negative."""

Group = tuple[Element, ...] | Callable[[int], tuple[Element, ...]]


@dataclass(frozen=True)
class Rotations:
    """The four quarter turns C4 of a square image.

    Parameters
    ----------
    image_shape : tuple of int
        (size, size) or (channels, size, size) of the images whose flat values are the
        rows.

    Raises
    ------
    ValueError
        When called, if the images are not square or not as large as the rows.

    References
    ----------
    .. [1] Cohen, Welling (2016), Group equivariant convolutional networks, ICML.

    Examples
    --------
    >>> from skebm.energies.invariant import Rotations
    >>> Rotations((2, 2))(4)
    ((0, 1, 2, 3), (1, 3, 0, 2), (3, 2, 1, 0), (2, 0, 3, 1))
    """

    image_shape: tuple[int, ...]

    def __call__(self, n_features: int) -> tuple[Element, ...]:
        """Return the four rearrangements of ``n_features`` columns."""
        places = torch.arange(n_features)
        n_values = torch.Size(self.image_shape).numel()
        if n_values != n_features or self.image_shape[-1] != self.image_shape[-2]:
            raise ValueError(
                f"Got image_shape={self.image_shape!r} for rows of {n_features} "
                "columns, but expected a square image with one value per column. Pass "
                "(size, size) or (channels, size, size)."
            )
        image = places.reshape(self.image_shape)
        turned = [image.rot90(k, (-2, -1)).flatten().tolist() for k in range(4)]
        return tuple(tuple(element) for element in turned)


@dataclass(frozen=True)
class SignFlip:
    """The group of the identity and x -> -x.

    References
    ----------
    .. [1] Cohen, Welling (2016), Group equivariant convolutional networks, ICML.

    Examples
    --------
    >>> from skebm.energies.invariant import SignFlip
    >>> SignFlip()(2)
    ((0, 1), (-1, -2))
    """

    def __call__(self, n_features: int) -> tuple[Element, ...]:
        """Return the two elements for ``n_features`` columns."""
        columns = range(n_features)
        return tuple(columns), tuple(~j for j in columns)


class Invariant(Energy):
    """The mean of an energy over a finite group.

    E(x) = (1 / |G|) sum over g in G of E_part(g x), so that E(g x) = E(x) for every g
    in G, whatever the part. A continuous group (rotations by any angle) would need
    quadrature and stays invariant only up to its error.

    Parameters
    ----------
    part : Energy
        The energy to average.
    group : tuple of tuples of int, or callable
        The elements g. Each one lists where the columns of g x come from: j for column
        j of x, ~j (that is -1 - j) for its negative. Or a callable that maps the number
        of columns to such a tuple: ``Rotations``, ``SignFlip``.

    Attributes
    ----------
    index : Tensor of shape (g, d)
        Column of x in each place, after `build`.
    sign : Tensor of shape (g, d)
        Its sign, +1 or -1.

    Raises
    ------
    ValueError
        From `build`, if an element does not rearrange the columns or if the product of
        two elements is missing.

    Notes
    -----
    Costs |G| energies of the part per row; for all orders of many columns use
    `SetEnergy`.

    References
    ----------
    .. [1] Yarotsky (2022), Universal approximations of invariant maps by neural
       networks, Constructive Approximation 55.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, Invariant
    >>> energy = Invariant(MLP(hidden=(8,)), group=((0, 1), (1, 0))).build(2)
    >>> e = energy(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    >>> bool(torch.isclose(e[0], e[1]))
    True
    """

    index: Tensor
    sign: Tensor

    def __init__(self, part: Energy, group: Group) -> None:
        super().__init__()
        self.part = part
        self.group = group

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the part and check that the elements form a group."""
        self.part.build(n_features, generator=generator)
        return self.check_group(n_features, device=seeded(generator).device)

    def check_group(self, n_features: int, device: torch.device | str = "cpu") -> Self:
        """Take up the group for a part that is built already.

        Parameters
        ----------
        n_features : int
            Columns of the rows.
        device : device or str, default="cpu"
            Where the indices live.

        Returns
        -------
        self : Invariant
            The energy, ready to be called.
        """
        given = self.group(n_features) if callable(self.group) else self.group
        elements = closed(given, n_features)
        index = torch.tensor(elements, device=device)
        self.register_buffer("sign", torch.where(index < 0, -1, 1).to(torch.int8))
        self.register_buffer("index", torch.where(index < 0, ~index, index))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean energy over the group, shape (n,)."""
        orbit = x[:, self.index] * self.sign
        e: Tensor = self.part(orbit.flatten(0, 1))
        return e.reshape(orbit.shape[:2]).mean(1)


class SetEnergy(Energy):
    """An energy of a set: the order of its elements does not matter.

    A row holds m elements of c columns each, one after the other, and
    E(x) = r((1 / m) sum_j q(x_j)) with perceptrons q and r. Any continuous function of
    a set has this form [1]_.

    Parameters
    ----------
    element_size : int, default=1
        Columns c of each element; rows have a multiple of it.
    hidden : tuple of int, default=(64, 64)
        Units of each hidden layer of q and of r, at least one, >= 1.
    activation : {"silu", "softplus", "gelu", "tanh", "elu", "relu"}, default="silu"
        Activation of both; smooth ones keep the gradient continuous.

    Attributes
    ----------
    elements, readout : Sequential
        The perceptrons q and r, after `build`.

    Raises
    ------
    ValueError
        From `build`, if the columns are no multiple of ``element_size``.

    References
    ----------
    .. [1] Zaheer, Kottur, Ravanbakhsh, Poczos, Salakhutdinov, Smola (2017), Deep sets,
       NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import SetEnergy
    >>> energy = SetEnergy(hidden=(8,)).build(3)
    >>> e = energy(torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]))
    >>> bool(torch.isclose(e[0], e[1]))
    True
    """

    elements: nn.Sequential
    readout: nn.Sequential

    def __init__(
        self,
        element_size: int = 1,
        hidden: tuple[int, ...] = (64, 64),
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.element_size = element_size
        self.hidden = hidden
        self.activation = activation

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights from ``generator``; None stands for the seed 0."""
        if self.element_size < 1 or n_features % self.element_size:
            raise ValueError(
                f"Got rows of {n_features} columns and element_size="
                f"{self.element_size}, but expected a whole number of elements. Pass "
                "the number of columns that describe one element."
            )
        if not self.hidden:
            raise ValueError(
                "Got hidden=(), but a sum over elements needs a hidden layer to sum. "
                "Pass for instance hidden=(64,)."
            )
        generator, width = seeded(generator), self.hidden[-1]
        self.elements = perceptron(
            (self.element_size, *self.hidden, width),
            self.activation,
            generator=generator,
            last_scale=1.0,
        )
        self.readout = perceptron(
            (width, *self.hidden, 1), self.activation, generator=generator
        )
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return r of the mean of q over the elements, shape (n,)."""
        parts = x.reshape(len(x), -1, self.element_size)
        e: Tensor = self.readout(self.elements(parts).mean(1)).squeeze(1)
        return e


def closed(elements: tuple[Element, ...], n_features: int) -> tuple[Element, ...]:
    """Return the elements once each, after checking that they form a group.

    A finite set of rearrangements that holds every product of two holds the identity
    and the inverses too.

    Parameters
    ----------
    elements : tuple of tuples of int
        As in `Invariant`.
    n_features : int
        Columns.

    Returns
    -------
    tuple of tuples of int
        The elements without repeats: a repeat would weigh double in the mean.

    Raises
    ------
    ValueError
        If an element does not rearrange the columns or a product is missing.
    """
    unique = tuple(dict.fromkeys(tuple(element) for element in elements))
    known = set(unique)
    columns = list(range(n_features))
    for g in unique:
        if sorted(j if j >= 0 else ~j for j in g) != columns:
            raise ValueError(
                f"Got the element {reprlib.repr(g)}, but expected each of {n_features} "
                "columns once: j for column j, ~j for its negative."
            )
    for g in unique:
        for h in unique:
            product = tuple(h[j] if j >= 0 else ~h[~j] for j in g)
            if product not in known:
                raise ValueError(
                    f"Got {len(unique)} elements that are no group: the product of "
                    f"{reprlib.repr(g)} and {reprlib.repr(h)} is missing. Add "
                    f"{reprlib.repr(product)}, until every product is there."
                )
    if not unique:
        raise ValueError("Got an empty group, but expected the identity at least.")
    return unique
