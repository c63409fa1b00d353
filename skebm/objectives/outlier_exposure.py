"""Outlier exposure: known outliers lie above a margin of energy, data below another."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Generator, Tensor, nn

from skebm._params import refuse
from skebm.energies import Energy, JointNetwork
from skebm.objectives.objective import Loss, Objective

GAP = 5.0
"""Nats between the margins where none is given."""


class Exposed(nn.Module):
    """What outlier exposure keeps: the outliers and the margins.

    Parameters
    ----------
    outliers : Tensor of shape (m, d)
        In the type of the training rows.
    inlier_margin, outlier_margin : float
        In nats.
    """

    outliers: Tensor
    margins: Tensor

    def __init__(
        self, outliers: Tensor, inlier_margin: float, outlier_margin: float
    ) -> None:
        super().__init__()
        self.register_buffer("outliers", outliers)
        self.register_buffer(
            "margins", outliers.new_tensor([inlier_margin, outlier_margin])
        )


@dataclass(eq=False)
class OutlierExposure(Objective):
    """Squared hinges that part the energies of data and of known outliers [1]_.

    L = mean max(0, E(x) - m_in)^2 + mean max(0, m_out - E(x'))^2 with rows x of the
    batch, as many rows x' drawn among the outliers, and E(x) = -log sum_y exp(g_y(x))
    of a classifier's logits g.

    Parameters
    ----------
    outliers : array-like of shape (m, d)
        Rows that are known not to be data: of other classes, noise, shuffled columns.
        `JEMClassifier` takes them in the units of its X and scales them as X.
    inlier_margin : float or "auto", default="auto"
        m_in: data are to lie below it. "auto" is 5 nats below ``outlier_margin``.
    outlier_margin : float or "auto", default="auto"
        m_out, above m_in: outliers are to lie above it. "auto" is -log K for K classes,
        the energy of logits that are all zero: an outlier speaks for no class.

    Notes
    -----
    A constant added to all logits moves E and no probability, so the gap of the
    margins is what counts. One evaluation of E on two rows for each row of data.
    Limits: E learns to tell data from these outliers; other ones may lie where neither
    were seen.

    References
    ----------
    .. [1] Liu, Wang, Owens, Li (2020), Energy-based out-of-distribution detection,
       NeurIPS.
    .. [2] Hendrycks, Mazeika, Dietterich (2019), Deep anomaly detection with outlier
       exposure, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import JointNetwork
    >>> from skebm.objectives import OutlierExposure
    >>> x, g = torch.zeros(4, 2), torch.Generator().manual_seed(0)
    >>> objective, energy = OutlierExposure([[5.0, 5.0]]), JointNetwork().build(2)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.item()  # data 5 nats too high
    25.0
    """

    outliers: Any
    inlier_margin: float | str = "auto"
    outlier_margin: float | str = "auto"

    def prepared(self, rows: Callable[[Any], Any]) -> Self:
        """Return the objective with outliers as the energy sees rows.

        Parameters
        ----------
        rows : callable
            Checks and scales them.

        Returns
        -------
        OutlierExposure
            With the scaled outliers.

        Raises
        ------
        ValueError
            If they do not fit the training rows.
        """
        try:
            return replace(self, outliers=rows(self.outliers))
        except ValueError as error:
            raise ValueError(
                f"The outliers of OutlierExposure must be rows like X: {error}"
            ) from error

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> Exposed:
        """Return the outliers and the margins.

        Raises
        ------
        ValueError
            If the outliers do not fit the rows or the margins are in the wrong order.
        TypeError
            If the energy is not that of a classifier's logits.
        """
        if not isinstance(energy, JointNetwork):
            raise TypeError(
                "OutlierExposure needs the energy of a classifier's logits, a "
                f"JointNetwork, but got {type(energy).__name__}. In JEMClassifier pass "
                "generative='network'."
            )
        outliers = torch.as_tensor(self.outliers).to(x)
        if outliers.ndim != 2 or outliers.shape[1] != x.shape[1] or not len(outliers):
            raise ValueError(
                f"Got outliers of shape {tuple(outliers.shape)}, but expected (m, "
                f"{x.shape[1]}), with the columns of the training rows."
            )
        lost = int((~outliers.isfinite()).any(1).sum())
        if lost:
            raise ValueError(
                f"Got outliers with NaN or infinity in {lost} of {len(outliers)} rows. "
                "Drop or impute them."
            )
        return Exposed(outliers, *self._margins(energy.n_classes))

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the hinges of ``batch`` and as many outliers."""
        kept = cast(Exposed, state)
        places = torch.randint(
            len(kept.outliers), (len(batch),), generator=generator, device=batch.device
        )
        e = energy(torch.cat([batch, kept.outliers[places]]))
        data, outliers = e[: len(batch)], e[len(batch) :]
        inlier_margin, outlier_margin = kept.margins
        high = (data - inlier_margin).clamp(min=0).square().mean()
        low = (outlier_margin - outliers).clamp(min=0).square().mean()
        metrics = {
            "energy": data.detach().mean(),
            "outlier_energy": outliers.detach().mean(),
        }
        return Loss(high + low, metrics)

    def _margins(self, n_classes: int) -> tuple[float, float]:
        """Return m_in and m_out."""
        for name in ("inlier_margin", "outlier_margin"):
            margin = getattr(self, name)
            valid = not isinstance(margin, str) or margin == "auto"
            refuse(self, {name: (valid, "a number or 'auto'")})
        low, high = self.inlier_margin, self.outlier_margin
        high = -math.log(n_classes) if isinstance(high, str) else float(high)
        low = high - GAP if isinstance(low, str) else float(low)
        if not low < high:
            raise ValueError(
                f"Got inlier_margin={low!r} and outlier_margin={high!r}, but expected "
                "inlier_margin < outlier_margin."
            )
        return low, high
