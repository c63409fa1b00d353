r"""
Sampling under constraints
==========================

**Question.** Some rows are impossible: negative amounts, shares that do not sum to one.
Does a hard constraint give the right distribution on what remains, and how does a soft
penalty differ?

**Exact reference.** A truncated normal and a Gaussian on a plane have closed forms; the
other regions here have two free columns, where a fine grid is as good as exact.
"""

# %%
# A hard constraint is an infinite energy
# ---------------------------------------
#
# ``Constrained`` adds :math:`+\infty` outside a region. Inside, the density keeps its
# shape; Metropolis-type samplers reject what lands outside. Here a correlated Gaussian
# loses every row with a negative first column or a second column above one.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import norm, truncnorm

from skebm.energies import (
    Box,
    Constrained,
    Energy,
    Mask,
    Penalized,
    Quadratic,
    Simplex,
)
from skebm.partition import Quadrature
from skebm.samplers import HMC, ULA, RandomWalk, minimize_energy, run_chains

generator = torch.Generator().manual_seed(0)


def gaussian(mean, covariance):
    """Return the energy of a Gaussian, in double precision."""
    mean, covariance = (torch.tensor(a).double() for a in (mean, covariance))
    return Quadratic().match(mean, covariance)


def draw(name, sampler, energy, starts, thin=1):
    """Return 1,000 draws of each chain, and print their mean and spread."""
    chains = run_chains(
        sampler, energy, starts, n_draws=1000, thin=thin, generator=generator
    )
    rows = chains.draws.flatten(0, 1)
    report(name, rows.mean(0), rows.std(0), f"R-hat {chains.rhat().max():.3f}")
    return rows


def report(name, mean, sd, note=""):
    """Print a line of numbers."""
    numbers = [np.array2string(np.asarray(a), precision=3) for a in (mean, sd)]
    print(f"{name:15} mean {numbers[0]}  sd {numbers[1]}  {note}")


def on_grid(energy, points):
    """Return the weights of grid points under exp(-E), their mean and spread."""
    with torch.no_grad():
        weights = (-energy(points)).softmax(0)
    mean = weights @ points
    return weights, mean, (weights @ (points - mean).square()).sqrt()


plain = gaussian([-0.5, 0.0], [[1.0, 0.6], [0.6, 1.0]])
box = Box(low=(0.0, -9.0), high=(9.0, 1.0))
boxed = Constrained(plain, box)
starts = box.project(plain.sample(64, generator=generator))
drawn_box = draw("HMC", HMC(), boxed, starts)
draw("random walk", RandomWalk(), boxed, starts, thin=3)

middles = (torch.arange(1000).double() + 0.5) / 1000
points = torch.cartesian_prod(5 * middles, 1 - 7 * middles)
_, mean, sd = on_grid(plain, points)
report("exact", mean, sd)
print("draws outside:", int((~box.contains(drawn_box)).sum()))

# %%
# In one column the result is the truncated normal, and its normaliser has shrunk by the
# probability of the region.

half = Constrained(gaussian([-0.5], [[1.0]]), Box(low=0.0, high=None))
draw("HMC", HMC(), half, torch.rand(64, 1, generator=generator).double())
exact = truncnorm(0.5, np.inf, loc=-0.5)
report("exact", [exact.mean()], [exact.std()])

found = Quadrature()(half, base=gaussian([0.5], [[1.0]]), generator=generator)
exact_log_z = half.part.log_partition() + norm.logsf(0.5)
print(f"log Z {found.value:.6f}, exact {exact_log_z:.6f}")

# %%
# Shares that sum to one
# ----------------------
#
# The simplex has no volume: a proposal in three columns never hits it. There are two
# ways on. ``ULA`` projects its rows on the region after each step, which is simple and
# leaves too much at the edges, the more the larger the step. Or the last share is
# computed from the others: then two free columns have volume, and ``HMC`` is exact.


class Shares(Energy):
    """An energy over all shares but the last one."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        """Return the energy of the completed rows."""
        return self.part(torch.cat([x, 1 - x.sum(1, keepdim=True)], 1))


def is_share(x):
    """Tell which rows leave no share negative."""
    return (x >= 0).all(1) & (x.sum(1) <= 1)


covariance = [[0.03, -0.005, 0.0], [-0.005, 0.02, 0.004], [0.0, 0.004, 0.03]]
three = gaussian([0.6, 0.4, 0.3], covariance)
starts = Simplex().project(three.sample(64, generator=generator))
on_simplex = Constrained(three, Simplex())
drawn = {}
for step_size in (0.01, 0.001):
    name = f"ULA {step_size}"
    drawn[name] = draw(name, ULA(step_size), on_simplex, starts, thin=5)
    on_edge = (drawn[name] == 0).any(1).double().mean()
    print(f"{'':15} rows exactly on an edge: {on_edge:.1%}")
inner = starts[:, :2] * 0.98 + 0.005
two_free = Constrained(Shares(three), Mask(is_share))
free = draw("HMC, two free", HMC(), two_free, inner)
drawn["HMC"] = torch.cat([free, 1 - free.sum(1, keepdim=True)], 1)
report("HMC, three", drawn["HMC"].mean(0), drawn["HMC"].std(0))

points = torch.cartesian_prod(middles, middles)
points = points[is_share(points)]
points = torch.cat([points, 1 - points.sum(1, keepdim=True)], 1)
weights, mean, sd = on_grid(three, points)
report("exact", mean, sd)

# %%
# In a picture: the triangle of all shares, its corners being one for a single column.

corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]]).double()
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
for ax, (name, rows) in zip(axes, drawn.items(), strict=True):
    ax.tricontourf(*(points @ corners)[::97].T, weights[::97], levels=12, cmap="Blues")
    ax.scatter(*(rows @ corners)[::100].T, s=2, color="tab:orange")
    ax.plot(*corners[[0, 1, 2, 0]].T, color="0.4", linewidth=0.8)
    ax.set(title=name, aspect="equal", xticks=[], yticks=[], ylim=(-0.05, 0.9))

# %%
# A soft penalty is another question
# ----------------------------------
#
# ``Penalized`` adds :math:`w / 2` times the squared violation of each row. Rows may
# break the rule and pay for it. For a Gaussian with :math:`s = 1^\top S\, 1` and the
# sum of the mean off by :math:`\delta`, the sum of a row then has variance :math:`s /
# (1 + w s)`, and the row of least energy is off by :math:`\delta / (1 + w s)`: the
# violation falls as :math:`1 / w` and is never zero.

s, delta = float(np.sum(covariance)), 0.3
print("weight   sd of the sum  exact    least energy off by  exact")
for weight in (10.0, 100.0, 1000.0):
    soft = Penalized(three, "sum_to_one", weight)
    chains = run_chains(HMC(), soft, starts, n_draws=300, generator=generator)
    spread = chains.draws.sum(2).std()
    off = minimize_energy(soft, starts[:1]).x.sum() - 1
    softness = 1 + weight * s
    exact_spread, exact_off = (s / softness) ** 0.5, delta / softness
    print(f"{weight:6.0f}   {spread:.4f}         {exact_spread:.4f}", end="   ")
    print(f"{off:.5f}              {exact_off:.5f}")

plt.show()

# %%
# Limit
# -----
#
# Rejection needs a region with volume, and a chain that is rejected does not move: in
# narrow regions acceptance tunes the steps down, and chains must start inside. Large
# penalties make a thin valley that takes small steps too. Neither knows a region in
# several pieces: chains stay in the piece in which they start.
