"""Where the chains of a sampler went."""

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skebm._torch import make_generator, to_numpy
from skebm.estimators.density import ScaledDensity
from skebm.estimators.drawing import mixed_chains
from skebm.plots.panels import axes_or_new, chosen_columns, label
from skebm.samplers import split_rhat


class ChainTraceDisplay:
    """Where the chains of a sampler went: a panel per column and one for the energy.

    Chains that mixed cross each other all the time and none stays apart. The title of
    a panel holds the rank-normalised split R-hat of all chains, 1 at best.

    Parameters
    ----------
    draws : ndarray of shape (n_draws, n_chains, k)
        Draws in order; the energy is the last column.
    names : sequence of str
        Names of the k columns.
    rhat : ndarray of shape (k,)
        R-hat of the columns.

    Attributes
    ----------
    lines_ : list of list of Line2D
        The traces of each panel, after `plot`.
    ax_, figure_ : ndarray of Axes, Figure
        Where they are drawn.

    References
    ----------
    .. [1] Vehtari, Gelman, Simpson, Carpenter, Burkner (2021), Rank-normalization,
       folding, and localization: an improved R-hat, Bayesian Analysis 16(2).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.plots import ChainTraceDisplay
    >>> from skebm.samplers import HMC, run_chains
    >>> x, generator = torch.zeros(64, 2), torch.Generator().manual_seed(0)
    >>> energy = Quadratic().build(2)
    >>> chains = run_chains(HMC(), energy, x, n_draws=50, generator=generator)
    >>> ChainTraceDisplay.from_chains(chains).names
    ['x0', 'x1', 'energy']
    """

    def __init__(self, *, draws, names, rhat):
        self.draws = draws
        self.names = names
        self.rhat = rhat

    @classmethod
    def from_estimator(
        cls, estimator, *, n_draws=200, features=None, random_state=None, ax=None
    ):
        """Run the chains of ``diagnose`` and draw them in the units of the table.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator of skebm with a ``sampler_``, such as `DeepEBM`.
        n_draws : int, default=200
            Draws of each of the 64 chains, >= 4.
        features : sequence of int or str or None, default=None
            Places or names of the columns; None is the first six.
        random_state : int, RandomState or None, default=None
            Seed of the chains; None takes the estimator's.
        ax : sequence of Axes or None, default=None
            One per column and one for the energy; None makes a figure.

        Returns
        -------
        ChainTraceDisplay
            The drawn display.
        """
        check_is_fitted(estimator)
        if not isinstance(estimator, ScaledDensity):
            raise TypeError(
                f"Got {type(estimator).__name__}, but expected an estimator with a "
                "sampler_, such as DeepEBM. Run skebm.samplers.run_chains on its "
                "energy_, and pass the result to from_chains."
            )
        law = estimator.energy_, estimator.base_, estimator.sampler_
        seed = estimator._seed(random_state)
        generator = make_generator(seed, estimator.device_)
        chains = mixed_chains(*law, n_draws, 1, generator=generator)
        draws = to_numpy(chains.draws) * estimator.scale_ + estimator.location_
        names = getattr(estimator, "feature_names_in_", None)
        return cls._of(chains, draws, names, features).plot(ax)

    @classmethod
    def from_chains(cls, chains, *, names=None, features=None, ax=None):
        """Draw the result of `skebm.samplers.run_chains`.

        Parameters
        ----------
        chains : Chains
            With 4 draws per chain or more.
        names : sequence of str or None, default=None
            Names of the columns; None counts them.
        features : sequence of int or str or None, default=None
            Places or names of the columns; None is the first six.
        ax : sequence of Axes or None, default=None
            One per column and one for the energy; None makes a figure.

        Returns
        -------
        ChainTraceDisplay
            The drawn display.
        """
        return cls._of(chains, to_numpy(chains.draws), names, features).plot(ax)

    @classmethod
    def _of(cls, chains, draws, names, features):
        """Return the display of columns of ``draws``, the energies in the last one."""
        known = list(range(draws.shape[2]) if names is None else names)
        chosen = chosen_columns(known, features)
        places = [known.index(name) for name in chosen]
        energies = chains.energies[:, :, None]
        rhat = torch.cat([chains.rhat()[places], split_rhat(energies)])
        return cls(
            draws=np.concatenate([draws[:, :, places], to_numpy(energies)], 2),
            names=[*map(label, chosen), "energy"],
            rhat=to_numpy(rhat),
        )

    def plot(self, ax=None, *, n_lines=8, line_kw=None):
        """Draw the traces of some chains.

        Parameters
        ----------
        ax : sequence of Axes or None, default=None
            One per panel; None makes a figure.
        n_lines : int, default=8
            Chains to draw, >= 1.
        line_kw : dict or None, default=None
            Arguments of ``Axes.plot``.

        Returns
        -------
        ChainTraceDisplay
            The display.
        """
        axes = axes_or_new(ax, len(self.names), sharex=True)
        usual = {"linewidth": 0.7, "alpha": 0.8} | (line_kw or {})
        self.lines_ = []
        for k, panel in enumerate(axes):
            self.lines_.append(panel.plot(self.draws[:, :n_lines, k], **usual))
            panel.set_ylabel(self.names[k])
            panel.set_title(f"R-hat {self.rhat[k]:.3f}", loc="right", fontsize="small")
        axes[-1].set_xlabel("draw")
        self.ax_, self.figure_ = axes, axes[0].figure
        return self
