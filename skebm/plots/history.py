"""Training over the epochs."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skebm.plots.panels import axes_or_new


class TrainingHistoryDisplay:
    """The numbers of training over the epochs, one panel per number.

    Parameters
    ----------
    history : dict of str to array-like of shape (n_iter,)
        Name to one number per epoch, such as ``history_`` of an estimator.

    Attributes
    ----------
    lines_ : list of Line2D
        One per panel, after `plot`.
    ax_, figure_ : ndarray of Axes, Figure
        Where they are drawn.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.

    Examples
    --------
    >>> from skebm.plots import TrainingHistoryDisplay
    >>> history = {"loss": [1.4, 1.2, 1.1], "valid_loss": [0.0, -0.3, -0.4]}
    >>> TrainingHistoryDisplay(history=history).plot().ax_.shape
    (2,)
    """

    def __init__(self, *, history):
        self.history = history

    @classmethod
    def from_estimator(cls, estimator, keys=None, *, ax=None):
        """Draw ``history_`` of an estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator of skebm that was trained in epochs.
        keys : sequence of str or None, default=None
            Which numbers; None is all of them.
        ax : Axes, sequence of Axes or None, default=None
            One per number; None makes a figure.

        Returns
        -------
        TrainingHistoryDisplay
            The drawn display.

        Raises
        ------
        ValueError
            If the estimator kept no such number.
        """
        check_is_fitted(estimator)
        known = getattr(estimator, "history_", {})
        keys = list(known if keys is None else keys)
        if not keys or not set(keys) <= set(known):
            raise ValueError(
                f"Got keys={keys!r}, but the history of {type(estimator).__name__} "
                f"holds {list(known)!r}. Choose from these; an estimator that is not "
                "trained in epochs has none."
            )
        return cls(history={key: known[key] for key in keys}).plot(ax)

    def plot(self, ax=None, *, line_kw=None):
        """Draw one panel per number.

        Parameters
        ----------
        ax : Axes, sequence of Axes or None, default=None
            One per number; None makes a figure.
        line_kw : dict or None, default=None
            Arguments of ``Axes.plot``.

        Returns
        -------
        TrainingHistoryDisplay
            The display.
        """
        axes = axes_or_new(ax, len(self.history), sharex=True)
        self.lines_ = []
        for panel, (key, values) in zip(axes, self.history.items(), strict=True):
            epochs = np.arange(1, len(values) + 1)
            self.lines_ += panel.plot(epochs, values, **(line_kw or {}))
            panel.set_ylabel(key)
        axes[-1].set_xlabel("epoch")
        self.ax_, self.figure_ = axes, axes[0].figure
        return self
