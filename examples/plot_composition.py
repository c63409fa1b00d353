r"""
Composing energies: AND, OR, NOT
================================

**Question.** Energies add. What do the sum, the mixture and the difference of two
energies mean, and what has to be known about :math:`Z` before they can be used?

**Exact reference.** Weighted sums of Gaussian energies are Gaussian energies: mean,
covariance and :math:`\log Z` are known in closed form. Everything else here has two
columns, where a sum over a fine grid is as good as exact.
"""

# %%
# Two Gaussians
# -------------
#
# ``match`` takes a mean and a covariance. ``left`` is flat and wide, ``right`` is tall
# and narrow; ``wide`` covers both.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from skebm import DeepEBM, ProductOfExperts
from skebm.energies import Guided, Mixture, Quadratic
from skebm.exceptions import NotNormalizableError
from skebm.partition import ImportanceSampling, Quadrature
from skebm.samplers import HMC, Cycle, Independence, run_chains


def gaussian(mean, covariance):
    """Return the energy of a Gaussian, in double precision."""
    mean, covariance = (torch.tensor(a).double() for a in (mean, covariance))
    return Quadratic().match(mean, covariance)


left = gaussian([-1.0, 0.0], [[4.0, 0.0], [0.0, 0.5]])
right = gaussian([1.5, 1.0], [[0.3, 0.2], [0.2, 2.0]])
wide = gaussian([0.0, 0.0], [[9.0, 0.0], [0.0, 9.0]])
generator = torch.Generator().manual_seed(0)


def draw(energy, sampler):
    """Return 200 draws of each of 64 chains."""
    x = wide.sample(64, generator=generator)
    chains = run_chains(sampler, energy, x, n_draws=200, generator=generator)
    print(f"R-hat {chains.rhat().max():.3f}, effective draws {chains.ess().min():.0f}")
    return chains.draws.flatten(0, 1)


def report(name, found, exact):
    """Print numbers next to the exact ones."""
    found, exact = (np.ravel(np.asarray(a, dtype=float)) for a in (found, exact))
    print(f"{name}: {found.round(3)}, exact {exact.round(3)}")


# %%
# AND: the sum
# ------------
#
# :math:`E_1 + E_2` is low where both are low: the product of the densities. The
# precisions add, and the mean is weighted by precision.

both = left + right
form = both.as_quadratic()
drawn_both = draw(both, HMC())
report("mean", drawn_both.mean(0), form.minimum())
report("covariance", drawn_both.T.cov(), torch.linalg.inv(form.precision))

# %%
# The normaliser of a product is not the product of the normalisers: it depends on how
# much the experts overlap, and is estimated afresh.

estimate = ImportanceSampling(100_000)(both, base=wide, generator=generator)
report("log Z", estimate.value, both.log_partition())
print("95% interval", np.round(estimate.interval, 3))
print("log Z_1 + log Z_2", round(left.log_partition() + right.log_partition(), 3))

# %%
# OR: the mixture
# ---------------
#
# A mixture adds *densities*, :math:`p = w_1 e^{-E_1} / Z_1 + w_2 e^{-E_2} / Z_2`.
# Leaving the :math:`Z_k` out gives each part a weight proportional to :math:`w_k Z_k`:
# the flat one takes what belongs to the tall one. :class:`~skebm.energies.Mixture` asks
# each part for its :math:`\log Z`, or takes an estimate where a part does not know it.

either = Mixture((left, right), weights=(0.5, 0.5))
drawn_either = draw(either, Cycle(HMC(), Independence(wide)))
report("mean", drawn_either.mean(0), [(-1.0 + 1.5) / 2, (0.0 + 1.0) / 2])
report("log Z", Quadrature()(either, base=wide, generator=generator).value, 0.0)

log_z = np.array([left.log_partition(), right.log_partition()])
print("weights without normalisers", np.exp(log_z - logsumexp(log_z)).round(3))

# %%
# NOT: the difference
# -------------------
#
# :math:`E_1 - c E_2` is low where the first is low and the second high: the density
# :math:`p_1 / p_2^c`. It exists only if :math:`E_1` rises faster than :math:`c E_2` in
# every direction; otherwise ``log_partition`` refuses.

away = wide - 0.02 * right
form = away.as_quadratic()
drawn_away = draw(away, HMC())
report("mean", drawn_away.mean(0), form.minimum())
report("covariance", drawn_away.T.cov(), torch.linalg.inv(form.precision))
try:
    (wide - right).log_partition()
except NotNormalizableError as error:
    print(error)

# %%
# Between Gaussians a NOT can only push away and widen. To cut a hole, what is
# subtracted must be bounded: here the step from ``wide`` to a mixture of ``wide`` and
# ``right``, taken backwards, :math:`E = E_u + w (E_u - E_m)`. Far from the hole
# :math:`E_m` equals :math:`E_u` up to a constant, so the result has a finite :math:`Z`
# for every weight.

hole = Guided(wide, Mixture((wide, right)), weight=2.0)
drawn_hole = draw(hole, Cycle(HMC(), Independence(wide)))
line = torch.linspace(-12, 12, 600, dtype=torch.float64)
grid = torch.cartesian_prod(line, line)
with torch.no_grad():
    weights = (-hole(grid)).softmax(0)
report("mean", drawn_hole.mean(0), weights @ grid)

# %%
# The four in pictures
# --------------------
#
# The line around ``right`` holds 86% of its mass; dots are draws.

line = torch.linspace(-9, 9, 200, dtype=torch.float64)
grid = torch.cartesian_prod(line, line)


def on_grid(energy):
    """Return the energies on the grid, rows along the second column."""
    with torch.no_grad():
        return energy(grid).view(200, 200).T


panels = {
    "left AND right": (both, drawn_both),
    "left OR right": (either, drawn_either),
    "wide, pushed off right": (away, drawn_away),
    "wide AND NOT right": (hole, drawn_hole),
}
fig, axes = plt.subplots(2, 2, figsize=(7.5, 7.5), layout="constrained")
for ax, (name, (energy, drawn)) in zip(axes.flat, panels.items(), strict=True):
    ax.contourf(line, line, (-on_grid(energy)).exp(), levels=15, cmap="Blues")
    ax.contour(line, line, on_grid(right), [2.0], colors="0.3", linewidths=0.8)
    ax.scatter(*drawn[::40].T, s=2, color="tab:orange", alpha=0.6)
    ax.set(title=name, aspect="equal", xlim=(-9, 9), ylim=(-9, 9))

# %%
# Fitted estimators: a product of experts
# ---------------------------------------
#
# One model has seen a ring, another one a band. :class:`~skebm.ProductOfExperts` asks
# for rows that both find typical, where neither was trained. It adds the energies in
# the units of the table and estimates :math:`\log Z` again. The reference is the
# product of the two true densities, summed over a grid.

rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 3000)
circle = 3 * np.column_stack([np.cos(angle), np.sin(angle)])
ring_rows = circle + 0.3 * rng.normal(size=(3000, 2))
band_rows = rng.normal(size=(3000, 2)) * [0.4, 2.5] + [1.5, 0.0]
expert = DeepEBM(base="gaussian", max_iter=20, random_state=0)
ring = clone(expert).fit(ring_rows)
band = clone(expert).fit(band_rows)
experts = [("ring", FrozenEstimator(ring)), ("band", FrozenEstimator(band))]
typical = ring_rows[np.abs(ring_rows[:, 0] - 1.5) < 0.8]
product = ProductOfExperts(experts, random_state=0).fit(typical)

side = np.linspace(-7, 7, 300)
points = np.column_stack([axis.ravel() for axis in np.meshgrid(side, side)])
turn = np.linspace(0, 2 * np.pi, 400, endpoint=False)
centers = 3 * np.column_stack([np.cos(turn), np.sin(turn)])
far = ((points[:, None] - centers[None, ::4]) ** 2).sum(2) / (2 * 0.3**2)
log_ring = logsumexp(-far, axis=1) - np.log(100 * 2 * np.pi * 0.3**2)
off = (points - [1.5, 0.0]) / [0.4, 2.5]
log_product = log_ring - 0.5 * (off**2).sum(1) - np.log(2 * np.pi * 0.4 * 2.5)
log_cell = 2 * np.log(side[1] - side[0])
log_product -= logsumexp(log_product) + log_cell
mass = np.exp(log_product + log_cell)

drawn = product.sample(5000, random_state=0)
log_density = product.score_samples(points)
report("mean log-density", mass @ log_density, mass @ log_product)
report("mean", drawn.mean(0), mass @ points)
report("sd", drawn.std(0), np.sqrt(mass @ points**2 - (mass @ points) ** 2))

fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained", sharey=True)
models = {"ring": ring, "band": band, "ring AND band": product}
for ax, (name, model) in zip(axes, models.items(), strict=True):
    density = np.exp(model.score_samples(points)).reshape(300, 300)
    ax.contourf(side, side, density, levels=15, cmap="Blues")
    ax.set(title=name, aspect="equal", xlim=(-5, 5), ylim=(-5, 5))
axes[2].scatter(*drawn[:400].T, s=2, color="tab:orange")
plt.show()

# %%
# Limit
# -----
#
# A product is only as good as its experts are *outside* their training rows: each one
# is read where the other one says so. Experts that hardly overlap leave a product that
# lives in their tails, where no rows taught them anything; the interval of :math:`\log
# Z` does not show this error. Chains find all modes of such a sum only with a proposal
# that covers them, as here.
