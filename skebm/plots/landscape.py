"""The energy over two columns."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skebm.plots.panels import axes_or_new, chosen_columns, label, table_of

MARGIN = 0.15
"""Share of the range of the rows by which the grid reaches beyond them."""

HIGHEST = 0.8
"""Share of the grid below the highest contour."""

N_LEVELS = 24


class EnergyLandscapeDisplay:
    """The energy over two columns, the others held fixed.

    The grid holds what ``energy`` of the estimator returns, nothing smoothed.

    Parameters
    ----------
    xx0, xx1 : ndarray of shape (grid_resolution, grid_resolution)
        Values of the two columns, as from ``numpy.meshgrid``.
    energy : ndarray of shape (grid_resolution, grid_resolution)
        E at the grid.
    xlabel, ylabel : str
        Names of the two columns.

    Attributes
    ----------
    surface_ : QuadContourSet
        The filled contours, after `plot`.
    ax_, figure_ : Axes, Figure
        Where they are drawn.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import EnergyOutlierDetector
    >>> from skebm.plots import EnergyLandscapeDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> detector = EnergyOutlierDetector(random_state=0).fit(X)
    >>> display = EnergyLandscapeDisplay.from_estimator(detector, X, features=(0, 2))
    """

    def __init__(self, *, xx0, xx1, energy, xlabel="", ylabel=""):
        self.xx0 = xx0
        self.xx1 = xx1
        self.energy = energy
        self.xlabel = xlabel
        self.ylabel = ylabel

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X=None,
        *,
        features=(0, 1),
        given=None,
        grid_resolution=100,
        ax=None,
    ):
        """Evaluate the energy on a grid and draw it.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator of skebm with at least two columns.
        X : array-like of shape (n_samples, n_features) or None, default=None
            Rows whose range the grid covers, and a little more. None draws 1,000 from
            the estimator.
        features : tuple of int or str, default=(0, 1)
            Places or names of the two columns.
        given : dict or None, default=None
            Other columns (place or name) and the values at which they are held. The
            rest is held at the median of X, at the most frequent value if not numeric.
        grid_resolution : int, default=100
            Points per column, >= 2.
        ax : Axes or None, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        EnergyLandscapeDisplay
            The drawn display.
        """
        check_is_fitted(estimator)
        table = table_of(estimator, estimator.sample(1000) if X is None else X)
        names = chosen_columns(list(table), features)
        given = given or {}
        fixed = chosen_columns(list(table), given)
        held = dict(zip(fixed, given.values(), strict=True))
        grid = np.meshgrid(*(_reach(table[name], grid_resolution) for name in names))
        columns = {name: held.get(name, _usual(table[name])) for name in table}
        columns |= dict(zip(names, map(np.ravel, grid), strict=True))
        rows = type(table)(columns)
        if not hasattr(estimator, "feature_names_in_"):
            rows = rows.to_numpy()
        energy = estimator.energy(rows).reshape(grid[0].shape)
        xlabel, ylabel = map(label, names)
        display = cls(
            xx0=grid[0], xx1=grid[1], energy=energy, xlabel=xlabel, ylabel=ylabel
        )
        return display.plot(ax)

    def plot(self, ax=None, *, contour_kw=None):
        """Draw filled contours with a colour bar.

        Parameters
        ----------
        ax : Axes or None, default=None
            Where to draw; None makes a figure.
        contour_kw : dict or None, default=None
            Arguments of ``Axes.contourf``. By default 24 levels from the least energy
            to the 80% quantile of the grid; what is higher has one colour.

        Returns
        -------
        EnergyLandscapeDisplay
            The display.
        """
        (ax,) = axes_or_new(ax, 1)
        energy = np.ma.masked_invalid(self.energy)
        low, high = energy.min(), np.quantile(energy.compressed(), HIGHEST)
        usual = {
            "levels": np.linspace(low, max(high, low + 1e-9), N_LEVELS),
            "cmap": "viridis_r",
            "extend": "max",
        }
        surface = ax.contourf(self.xx0, self.xx1, energy, **usual | (contour_kw or {}))
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        ax.figure.colorbar(surface, ax=ax, label="energy", format="%.3g")
        self.surface_, self.ax_, self.figure_ = surface, ax, ax.figure
        return self


def _reach(column, n_points):
    """Return evenly spaced values over the range of a column, and a little more."""
    low, high = float(column.min()), float(column.max())
    margin = MARGIN * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, n_points)


def _usual(column):
    """Return the median of a numeric column, else the most frequent value."""
    is_number = column.dtype.kind in "biuf"
    return float(column.median()) if is_number else column.mode()[0]
