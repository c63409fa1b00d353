"""Energies: values that clone and compose, modules that map rows to E(x)."""

from skebm.energies.anomaly import AnomalyEnergy
from skebm.energies.bag import MemoryBag
from skebm.energies.energy import Energy, Frozen, Scaled, Sum
from skebm.energies.local import LocalMemory
from skebm.energies.memory import Memory
from skebm.energies.quadratic import Quadratic

__all__ = [
    "AnomalyEnergy",
    "Energy",
    "Frozen",
    "LocalMemory",
    "Memory",
    "MemoryBag",
    "Quadratic",
    "Scaled",
    "Sum",
]
