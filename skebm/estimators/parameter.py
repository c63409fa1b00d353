"""``energy``: an argument of the constructor, and the method that readers call."""

from functools import partial

from sklearn.base import BaseEstimator

from skebm.base import BaseEBM
from skebm.energies import Energy


class _ParameterAndReader:
    """Stores what is set under the name of the argument; gives the method when asked.

    scikit-learn keeps an argument in the attribute of its name, and every estimator of
    skebm has the method ``energy``. `EnergyParameter.get_params` reads the argument.
    """

    def __get__(self, estimator, owner=None):
        if estimator is None:
            return BaseEBM.energy
        return partial(BaseEBM.energy, estimator)

    def __set__(self, estimator, value):
        vars(estimator)["energy"] = value


class EnergyParameter(BaseEstimator):
    """Mixin of estimators with a constructor argument named ``energy``."""

    energy = _ParameterAndReader()

    @property
    def _energy(self):
        """The argument ``energy`` of the constructor."""
        return vars(self)["energy"]

    def get_params(self, deep=True):
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Add the parameters of nested values as ``name__inner``.

        Returns
        -------
        dict
            Name to value.
        """
        params = super().get_params(deep)
        params["energy"] = self._energy
        if deep and isinstance(self._energy, Energy):
            inner = self._energy.get_params()
            params |= {f"energy__{name}": value for name, value in inner.items()}
        return params
