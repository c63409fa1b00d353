"""Energies: values that clone and compose, modules that map rows to E(x)."""

from skebm.energies.anomaly import AnomalyEnergy
from skebm.energies.bag import MemoryBag
from skebm.energies.boltzmann import Boltzmann
from skebm.energies.bowl import Bowl
from skebm.energies.chain import Chain
from skebm.energies.checkpointed import Checkpointed
from skebm.energies.class_rbm import ClassRBM
from skebm.energies.composition import Guided, Interpolated, Mixture
from skebm.energies.conditional_rbm import ContextRBM
from skebm.energies.conditioned import Conditioned
from skebm.energies.constraints import Constrained, Penalized
from skebm.energies.convolutional import Convolutional
from skebm.energies.deep_belief import DeepBelief
from skebm.energies.deep_boltzmann import DeepBoltzmann
from skebm.energies.denoiser import AtLevel, Denoiser, NoiseConditional, NoisyMLP
from skebm.energies.energy import Energy, Frozen, Scaled, Sum
from skebm.energies.exponential_family import ExponentialFamily
from skebm.energies.features import FeatureEnergy, Readout
from skebm.energies.gaussians import Gaussians
from skebm.energies.invariant import Invariant, Rotations, SetEnergy, SignFlip
from skebm.energies.joint import (
    JointEnergy,
    JointNetwork,
    JointPatterns,
    JointTilted,
    OfLabel,
)
from skebm.energies.latent import LatentVariable
from skebm.energies.local import LocalMemory
from skebm.energies.memory import Memory
from skebm.energies.mixed_units import CategoricalUnits, MixedUnits
from skebm.energies.module import Module
from skebm.energies.ordinal_rbm import OrdinalRBM, RatedRows, Ratings
from skebm.energies.pairs import PairEnergy, Similarity
from skebm.energies.patterns import ClassPatterns
from skebm.energies.perceptrons import MLP, ResidualMLP
from skebm.energies.quadratic import Quadratic
from skebm.energies.rbm import RBM
from skebm.energies.regions import Ball, Box, Mask, Simplex
from skebm.energies.rescaled import Rescaled
from skebm.energies.response import ResponseEnergy
from skebm.energies.tilted import Tilted
from skebm.energies.transformer import Transformer
from skebm.energies.units import BernoulliUnits, GaussianUnits, Units

__all__ = [
    "MLP",
    "RBM",
    "AnomalyEnergy",
    "AtLevel",
    "Ball",
    "BernoulliUnits",
    "Boltzmann",
    "Bowl",
    "Box",
    "CategoricalUnits",
    "Chain",
    "Checkpointed",
    "ClassPatterns",
    "ClassRBM",
    "Conditioned",
    "Constrained",
    "ContextRBM",
    "Convolutional",
    "DeepBelief",
    "DeepBoltzmann",
    "Denoiser",
    "Energy",
    "ExponentialFamily",
    "FeatureEnergy",
    "Frozen",
    "GaussianUnits",
    "Gaussians",
    "Guided",
    "Interpolated",
    "Invariant",
    "JointEnergy",
    "JointNetwork",
    "JointPatterns",
    "JointTilted",
    "LatentVariable",
    "LocalMemory",
    "Mask",
    "Memory",
    "MemoryBag",
    "MixedUnits",
    "Mixture",
    "Module",
    "NoiseConditional",
    "NoisyMLP",
    "OfLabel",
    "OrdinalRBM",
    "PairEnergy",
    "Penalized",
    "Quadratic",
    "RatedRows",
    "Ratings",
    "Readout",
    "Rescaled",
    "ResidualMLP",
    "ResponseEnergy",
    "Rotations",
    "Scaled",
    "SetEnergy",
    "SignFlip",
    "Similarity",
    "Simplex",
    "Sum",
    "Tilted",
    "Transformer",
    "Units",
]
