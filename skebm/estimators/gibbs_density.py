"""What densities with chains of Gibbs steps share: a diagnosis of the chains."""

from abc import abstractmethod

from sklearn.utils.validation import check_is_fitted

from skebm._torch import refuse_forked_process
from skebm.base import BaseEBM
from skebm.estimators.drawing import diagnosis, warn_unless_mixed


class GibbsDensity(BaseEBM):
    """A density whose chains of Gibbs steps `diagnose` runs.

    A subclass runs them in `_run_chains`.
    """

    @abstractmethod
    def _run_chains(self, n_draws, seed):
        """Run the chains of `diagnose`.

        Return `Chains`, the names of the units that they draw, and energies of
        calibration rows; None where rows of the data lack some of these units.
        """

    def diagnose(self, n_draws=200, *, random_state=None):
        """Run 64 chains of Gibbs steps and tell whether they mix.

        Parameters
        ----------
        n_draws : int, default=200
            Draws of each chain, >= 4.
        random_state : int, RandomState or None, default=None
            Seed of the chains; None takes the estimator's.

        Returns
        -------
        DataFrame of shape (n_units + 1, 6)
            One line per unit that the chains draw, in the values of the units, and one
            for their energy; see `DeepEBM.diagnose`. The units are the columns, with
            several hidden layers those of the Notes; ``energy_gap`` is NaN where rows
            of the data lack some of them.

        Warns
        -----
        NotMixedWarning
            If the largest R-hat is above 1.05.
        """
        check_is_fitted(self)
        refuse_forked_process()
        chains, names, known = self._run_chains(n_draws, self._seed(random_state))
        warn_unless_mixed(chains)
        return diagnosis(chains, names, known)
