"""E(x, y): a restricted Boltzmann machine of bits and one label."""

from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.mixed_units import CategoricalUnits, MixedUnits
from skebm.energies.rbm import RBM
from skebm.energies.units import BernoulliUnits


class ClassRBM(RBM):
    """The free energy of a classification RBM: d bits x, then the code of a label y.

    E(x, y) = -b'x - d_y - sum_j log(1 + exp(c_j + U_jy + W_j x)), hidden bits summed
    out [1]_. Over the labels the sum is finite, so that
    p(y | x) = softmax_y(d_y + sum_j log(1 + exp(c_j + U_jy + W_j x))) is exact.

    Parameters
    ----------
    n_hidden : int, default=256
        Hidden bits, >= 1.
    n_classes : int, default=2
        Labels 0, 1, ..., n_classes - 1; >= 2.

    Attributes
    ----------
    weight : Parameter of shape (n_hidden, d + n_classes)
        W and U side by side.
    visible_bias : Parameter of shape (d + n_classes,)
        b and d.
    hidden_bias : Parameter of shape (n_hidden,)
        c.

    References
    ----------
    .. [1] Larochelle, Bengio (2008), Classification using discriminative restricted
       Boltzmann machines, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ClassRBM
    >>> rbm = ClassRBM(n_hidden=4, n_classes=3).build(3)
    >>> rbm.class_fields(torch.zeros(1, 2)).shape
    torch.Size([1, 3])
    """

    def __init__(self, n_hidden: int = 256, n_classes: int = 2) -> None:
        super().__init__(n_hidden)
        self.n_classes = n_classes

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the weights for rows of ``n_features`` columns, the label included."""
        label = CategoricalUnits(self.n_classes)
        self.units = MixedUnits([(BernoulliUnits(), n_features - 1), (label, 1)])
        return super().build(n_features, generator=generator)

    def class_fields(self, x: Tensor) -> Tensor:
        """Return log p(x, y) + log Z - b'x of every label.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows without their labels.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Their softmax is p(y | x).
        """
        fields = self._fields_of_bits(x)[:, None] + self._split(self.weight)[1].T
        bias = self._split(self.visible_bias)[1]
        return nn.functional.softplus(fields).sum(2) + bias

    def class_energies(self, x: Tensor) -> Tensor:
        """Return E(x, y) of every label.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows without their labels.

        Returns
        -------
        Tensor of shape (n, n_classes)
            The free energy with each of the labels.
        """
        bias = self._split(self.visible_bias)[0]
        return -(x @ bias)[:, None] - self.class_fields(x)

    def log_proba(self, x: Tensor) -> Tensor:
        """Return log p(y | x).

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows without their labels.

        Returns
        -------
        Tensor of shape (n, n_classes)
            In nats.
        """
        return self.class_fields(x).log_softmax(1)

    def features(self, x: Tensor) -> Tensor:
        """Return p(h = 1 | x), the label summed out.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows without their labels.

        Returns
        -------
        Tensor of shape (n, n_hidden)
            sum_y p(y | x) p(h = 1 | x, y).
        """
        fields = self._fields_of_bits(x)[:, None] + self._split(self.weight)[1].T
        p = self.class_fields(x).softmax(1)
        return torch.einsum("nk,nkh->nh", p, fields.sigmoid())

    def _fields_of_bits(self, x: Tensor) -> Tensor:
        """Return c + W x, shape (n, n_hidden)."""
        return torch.addmm(self.hidden_bias, x, self._split(self.weight)[0].T)

    def _split(self, of_statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Return what belongs to the bits, and what to the label."""
        k = self.n_classes
        return of_statistics[..., :-k], of_statistics[..., -k:]
