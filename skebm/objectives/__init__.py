"""Objectives: values that map an energy and a batch of rows to a loss."""

from skebm.objectives.adversarial import Adversarial
from skebm.objectives.augmentations import (
    Augmentation,
    FeatureCorruption,
    GaussianNoise,
)
from skebm.objectives.boltzmann import BoltzmannLikelihood, PseudoLikelihood
from skebm.objectives.chain_likelihood import ChainLikelihood
from skebm.objectives.class_likelihood import ClassLikelihood
from skebm.objectives.conditional_rbm import ConditionalLikelihood
from skebm.objectives.contrastive_divergence import (
    ContrastiveDivergence,
    MaximumLikelihood,
)
from skebm.objectives.deep_boltzmann import DeepBoltzmannLikelihood
from skebm.objectives.denoising import DenoisingScoreMatching, MultiNoiseScoreMatching
from skebm.objectives.drawn_rows import DrawnRowsLikelihood
from skebm.objectives.exact_likelihood import ExactLikelihood
from skebm.objectives.info_nce import InfoNCE
from skebm.objectives.joint import JointLikelihood
from skebm.objectives.margin import Margin
from skebm.objectives.noise_contrastive import NoiseContrastive
from skebm.objectives.objective import Loss, Objective
from skebm.objectives.outlier_exposure import OutlierExposure
from skebm.objectives.ranking import RankingNoiseContrastive
from skebm.objectives.rating_likelihood import RatingLikelihood
from skebm.objectives.rbm import RBMLikelihood
from skebm.objectives.regularized import Regularized
from skebm.objectives.response_likelihood import ResponseLikelihood
from skebm.objectives.score_matching import ScoreMatching, SlicedScoreMatching

__all__ = [
    "Adversarial",
    "Augmentation",
    "BoltzmannLikelihood",
    "ChainLikelihood",
    "ClassLikelihood",
    "ConditionalLikelihood",
    "ContrastiveDivergence",
    "DeepBoltzmannLikelihood",
    "DenoisingScoreMatching",
    "DrawnRowsLikelihood",
    "ExactLikelihood",
    "FeatureCorruption",
    "GaussianNoise",
    "InfoNCE",
    "JointLikelihood",
    "Loss",
    "Margin",
    "MaximumLikelihood",
    "MultiNoiseScoreMatching",
    "NoiseContrastive",
    "Objective",
    "OutlierExposure",
    "PseudoLikelihood",
    "RBMLikelihood",
    "RankingNoiseContrastive",
    "RatingLikelihood",
    "Regularized",
    "ResponseLikelihood",
    "ScoreMatching",
    "SlicedScoreMatching",
]
