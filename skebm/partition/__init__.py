"""log Z: exact where it can be, else by importance, annealing or particles."""

from skebm.partition.annealed import AIS
from skebm.partition.boltzmann import AnnealedUnitGibbs, StateSum
from skebm.partition.conditional_rbm import log_partition_given
from skebm.partition.estimate import LogPartition, Normalizer, Particles, fit_base
from skebm.partition.exact import Enumeration, Quadrature
from skebm.partition.importance import ImportanceSampling
from skebm.partition.normalizable import check_normalizable
from skebm.partition.pseudo import pseudo_log_likelihood
from skebm.partition.rbm import AnnealedGibbs, LayerSum
from skebm.partition.smc import SMC

__all__ = [
    "AIS",
    "SMC",
    "AnnealedGibbs",
    "AnnealedUnitGibbs",
    "Enumeration",
    "ImportanceSampling",
    "LayerSum",
    "LogPartition",
    "Normalizer",
    "Particles",
    "Quadrature",
    "StateSum",
    "check_normalizable",
    "fit_base",
    "log_partition_given",
    "pseudo_log_likelihood",
]
