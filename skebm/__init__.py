"""Energy-based models for people who work in scikit-learn."""

from skebm.estimators.deep import DeepEBM
from skebm.estimators.outlier import EnergyOutlierDetector
from skebm.estimators.product import ProductOfExperts
from skebm.estimators.rbm import BernoulliRBM

__version__ = "0.1.0.dev0"

__all__ = ["BernoulliRBM", "DeepEBM", "EnergyOutlierDetector", "ProductOfExperts"]
