"""Displays: landscape of an energy, training history, traces of chains, samples.

matplotlib (the extra ``plots``) is imported when something is drawn.
"""

from skebm.plots.history import TrainingHistoryDisplay
from skebm.plots.landscape import EnergyLandscapeDisplay
from skebm.plots.samples import SampleDisplay
from skebm.plots.traces import ChainTraceDisplay

__all__ = [
    "ChainTraceDisplay",
    "EnergyLandscapeDisplay",
    "SampleDisplay",
    "TrainingHistoryDisplay",
]
