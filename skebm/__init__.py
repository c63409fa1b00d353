"""Energy-based models for people who work in scikit-learn."""

from skebm.estimators.outlier import EnergyOutlierDetector

__version__ = "0.1.0.dev0"

__all__ = ["EnergyOutlierDetector"]
