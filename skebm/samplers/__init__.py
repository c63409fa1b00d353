"""Samplers: Markov kernels as values, and the chains that they run."""

from skebm.samplers.annealed import AnnealedLangevin
from skebm.samplers.annealing import AnnealedLayers
from skebm.samplers.chains import Chains, run_chains
from skebm.samplers.clamped import draw_missing, marginal_energies
from skebm.samplers.conditional_rbm import draw_given
from skebm.samplers.cycle import Cycle
from skebm.samplers.diagnostics import bulk_ess, split_rhat
from skebm.samplers.gibbs import BlockGibbs
from skebm.samplers.hmc import HMC
from skebm.samplers.langevin import MALA, ULA
from skebm.samplers.metropolis import Independence, RandomWalk
from skebm.samplers.minimize import Minima, minimize_energy
from skebm.samplers.sampler import ChainState, Sampler, StepInfo
from skebm.samplers.state_law import StateLaw, draw_units
from skebm.samplers.tempering import ParallelTempering
from skebm.samplers.unit_gibbs import AnnealedUnits, UnitGibbs

__all__ = [
    "HMC",
    "MALA",
    "ULA",
    "AnnealedLangevin",
    "AnnealedLayers",
    "AnnealedUnits",
    "BlockGibbs",
    "ChainState",
    "Chains",
    "Cycle",
    "Independence",
    "Minima",
    "ParallelTempering",
    "RandomWalk",
    "Sampler",
    "StateLaw",
    "StepInfo",
    "UnitGibbs",
    "bulk_ess",
    "draw_given",
    "draw_missing",
    "draw_units",
    "marginal_energies",
    "minimize_energy",
    "run_chains",
    "split_rhat",
]
