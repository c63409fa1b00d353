"""Samples against data."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skebm.plots.panels import axes_or_new, chosen_columns, label, table_of

N_BINS = 40

RARE = 0.002
"""Share of the rows at either end that histograms leave out."""


class SampleDisplay:
    """Samples against data: two scatter plots for two columns, histograms otherwise.

    Parameters
    ----------
    data, samples : ndarray of shape (n, k), ndarray of shape (m, k)
        Rows to compare.
    names : sequence of str
        Names of the k columns.

    Attributes
    ----------
    ax_, figure_ : ndarray of Axes, Figure
        Where they are drawn, after `plot`: data and samples, or one per column.

    References
    ----------
    .. [1] Gelman, Meng, Stern (1996), Posterior predictive assessment of model fitness
       via realized discrepancies, Statistica Sinica 6(4).

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import EnergyOutlierDetector
    >>> from skebm.plots import SampleDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> detector = EnergyOutlierDetector(random_state=0).fit(X)
    >>> SampleDisplay.from_estimator(detector, X).ax_.shape
    (3,)
    """

    def __init__(self, *, data, samples, names):
        self.data = data
        self.samples = samples
        self.names = names

    @classmethod
    def from_estimator(cls, estimator, X, *, features=None, random_state=None, ax=None):
        """Draw as many rows as there are data, and both.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator of skebm with ``sample``.
        X : array-like of shape (n_samples, n_features)
            Data of numeric columns.
        features : sequence of int or str or None, default=None
            Places or names of the columns; None is the first six.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.
        ax : sequence of Axes or None, default=None
            Two for two columns, else one per column; None makes a figure.

        Returns
        -------
        SampleDisplay
            The drawn display.
        """
        check_is_fitted(estimator)
        data = table_of(estimator, X)
        drawn = estimator.sample(len(data), random_state=random_state)
        names = chosen_columns(list(data), features)
        data, samples = (
            t[names].to_numpy() for t in (data, table_of(estimator, drawn))
        )
        display = cls(data=data, samples=samples, names=[*map(label, names)])
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw scatter plots side by side, or histograms over the same bins.

        Parameters
        ----------
        ax : sequence of Axes or None, default=None
            Two for two columns, else one per column; None makes a figure.

        Returns
        -------
        SampleDisplay
            The display.
        """
        rows = {"data": self.data, "samples": self.samples}
        if len(self.names) == 2:
            axes = axes_or_new(ax, 2, sharex=True, sharey=True, across=True)
            for panel, (name, x) in zip(axes, rows.items(), strict=True):
                panel.scatter(x[:, 0], x[:, 1], s=2, alpha=0.5)
                panel.set(title=name, xlabel=self.names[0], ylabel=self.names[1])
        else:
            axes = axes_or_new(ax, len(self.names))
            for k, panel in enumerate(axes):
                both = np.concatenate([x[:, k] for x in rows.values()])
                span = tuple(np.quantile(both, [RARE, 1 - RARE]))
                bins = np.histogram_bin_edges(both, N_BINS, range=span)
                for name, x in rows.items():
                    panel.hist(x[:, k], bins, density=True, histtype="step", label=name)
                panel.set_xlabel(self.names[k])
            axes[0].legend()
        self.ax_, self.figure_ = axes, axes[0].figure
        return self
