"""Energy-based models for people who work in scikit-learn."""

from skebm.estimators.boltzmann_machine import BoltzmannMachine
from skebm.estimators.categorical_rbm import CategoricalRBM
from skebm.estimators.chain_labeler import ChainLabeler
from skebm.estimators.conditional_rbm import ConditionalRBM
from skebm.estimators.contrastive_encoder import EnergyContrastiveEncoder
from skebm.estimators.deep import DeepEBM
from skebm.estimators.deep_belief import DeepBeliefNetwork
from skebm.estimators.deep_boltzmann import DeepBoltzmannMachine
from skebm.estimators.energy_regressor import EBMRegressor
from skebm.estimators.gaussian_rbm import GaussianRBM
from skebm.estimators.jem import JEMClassifier
from skebm.estimators.mixed_rbm import MixedRBM
from skebm.estimators.outlier import EnergyOutlierDetector
from skebm.estimators.product import ProductOfExperts
from skebm.estimators.rating_rbm import RatingRBM
from skebm.estimators.rbm import BernoulliRBM
from skebm.estimators.rbm_classifier import RBMClassifier

__version__ = "0.1.0.dev0"

__all__ = [
    "BernoulliRBM",
    "BoltzmannMachine",
    "CategoricalRBM",
    "ChainLabeler",
    "ConditionalRBM",
    "DeepBeliefNetwork",
    "DeepBoltzmannMachine",
    "DeepEBM",
    "EBMRegressor",
    "EnergyContrastiveEncoder",
    "EnergyOutlierDetector",
    "GaussianRBM",
    "JEMClassifier",
    "MixedRBM",
    "ProductOfExperts",
    "RBMClassifier",
    "RatingRBM",
]
