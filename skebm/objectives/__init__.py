"""Objectives: values that map an energy and a batch of rows to a loss."""

from skebm.objectives.adversarial import Adversarial
from skebm.objectives.contrastive_divergence import (
    ContrastiveDivergence,
    MaximumLikelihood,
)
from skebm.objectives.denoising import DenoisingScoreMatching, MultiNoiseScoreMatching
from skebm.objectives.margin import Margin
from skebm.objectives.noise_contrastive import NoiseContrastive
from skebm.objectives.objective import Loss, Objective
from skebm.objectives.ranking import RankingNoiseContrastive
from skebm.objectives.rbm import RBMLikelihood
from skebm.objectives.regularized import Regularized
from skebm.objectives.score_matching import ScoreMatching, SlicedScoreMatching

__all__ = [
    "Adversarial",
    "ContrastiveDivergence",
    "DenoisingScoreMatching",
    "Loss",
    "Margin",
    "MaximumLikelihood",
    "MultiNoiseScoreMatching",
    "NoiseContrastive",
    "Objective",
    "RBMLikelihood",
    "RankingNoiseContrastive",
    "Regularized",
    "ScoreMatching",
    "SlicedScoreMatching",
]
