"""The strings that stand for energies, objectives, samplers and normalisers."""

from sklearn.base import clone

from skebm.energies import (
    MLP,
    ClassPatterns,
    Denoiser,
    Quadratic,
    ResidualMLP,
    Transformer,
)
from skebm.objectives import (
    Adversarial,
    ConditionalLikelihood,
    ContrastiveDivergence,
    DenoisingScoreMatching,
    FeatureCorruption,
    GaussianNoise,
    Margin,
    MaximumLikelihood,
    MultiNoiseScoreMatching,
    NoiseContrastive,
    RankingNoiseContrastive,
    RBMLikelihood,
    ScoreMatching,
    SlicedScoreMatching,
)
from skebm.partition import (
    AIS,
    SMC,
    AnnealedGibbs,
    ImportanceSampling,
    LayerSum,
    Quadrature,
)
from skebm.samplers import HMC, MALA, ULA, ParallelTempering, RandomWalk

ENERGIES = {
    "mlp": MLP(),
    "residual": ResidualMLP(),
    "transformer": Transformer(),
    "denoiser": Denoiser(),
    "quadratic": Quadratic(),
}
OBJECTIVES = {
    "nce": NoiseContrastive(),
    "ranking_nce": RankingNoiseContrastive(),
    "cd": ContrastiveDivergence(),
    "pcd": ContrastiveDivergence(persistent=True),
    "ml": MaximumLikelihood(),
    "sm": ScoreMatching(),
    "ssm": SlicedScoreMatching(),
    "dsm": DenoisingScoreMatching(),
    "multi_dsm": MultiNoiseScoreMatching(),
    "adversarial": Adversarial(),
    "margin": Margin(),
}
AUGMENTATIONS = {"corruption": FeatureCorruption(), "noise": GaussianNoise()}
SAMPLERS = {
    "hmc": HMC(),
    "mala": MALA(),
    "ula": ULA(),
    "random_walk": RandomWalk(),
    "tempering": ParallelTempering(),
}
NORMALIZERS = {
    "importance": ImportanceSampling(),
    "quadrature": Quadrature(),
    "ais": AIS(),
    "smc": SMC(),
}

BACKBONES = {
    "mlp": MLP(hidden=(64, 64)),
    "residual": ResidualMLP(),
    "transformer": Transformer(),
    "linear": None,
}
GENERATIVE = {
    "patterns": ClassPatterns(),
    "tilted": "auto",
    "network": "network",
}

RBM_OBJECTIVES = {
    "pcd": RBMLikelihood(),
    "cd": RBMLikelihood(chains="data"),
    "tempered": RBMLikelihood(chains="tempered", n_chains=20),
}
CONDITIONAL_OBJECTIVES = {
    "auto": ConditionalLikelihood(),
    "cd": ConditionalLikelihood(most_states=0),
}
RBM_NORMALIZERS = {"sum": LayerSum(), "annealing": AnnealedGibbs()}


def resolve(choice, options):
    """Return a fresh value for a string or a value.

    Parameters
    ----------
    choice : str or Params
        A key of ``options``, or a value.
    options : dict
        One of the tables of this file.

    Returns
    -------
    Params
        A clone; the constructor argument is never changed.
    """
    return clone(options[choice] if isinstance(choice, str) else choice)
