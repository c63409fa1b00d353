"""log Z: exact where it can be, else by importance, annealing or particles."""

from skebm.partition.annealed import AIS
from skebm.partition.estimate import LogPartition, Normalizer, Particles, fit_base
from skebm.partition.exact import Enumeration, Quadrature
from skebm.partition.importance import ImportanceSampling
from skebm.partition.normalizable import check_normalizable
from skebm.partition.smc import SMC

__all__ = [
    "AIS",
    "SMC",
    "Enumeration",
    "ImportanceSampling",
    "LogPartition",
    "Normalizer",
    "Particles",
    "Quadrature",
    "check_normalizable",
    "fit_base",
]
