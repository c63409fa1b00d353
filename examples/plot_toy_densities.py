"""
How close does a learned energy come to a known density?
========================================================

**Question.** A network can draw any shape in two columns. Does
:class:`~skebm.DeepEBM` give the right *height* too, so that its mean log-density on new
rows is a likelihood to be trusted?

**Exact reference.** Three toys whose density is known. No model can have a higher mean
log-density over new rows, up to chance, than the density that made them; the difference
is the Kullback-Leibler divergence.
"""

# %%
# Three densities
# ---------------
#
# Eight Gaussians on a ring; a checkerboard, which is uniform over an area of 32, so
# that its log-density is :math:`-\log 32` wherever there are rows; and two moons, arcs
# blurred by noise, whose density is an average of Gaussians along the arcs.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import make_moons

from skebm import DeepEBM
from skebm.plots import (
    ChainTraceDisplay,
    EnergyLandscapeDisplay,
    SampleDisplay,
    TrainingHistoryDisplay,
)

rng = np.random.default_rng(0)
angles = np.arange(8) * np.pi / 4
ring = 4 * np.column_stack([np.cos(angles), np.sin(angles)])
arc = np.linspace(0, np.pi, 500)
upper = np.column_stack([np.cos(arc), np.sin(arc)])
moons = np.vstack([upper, [1, 0.5] - upper])


def log_gaussians(x, centers, sd):
    """Return the log-density of equal round Gaussians."""
    squares = ((x**2).sum(1)[:, None] - 2 * x @ centers.T) + (centers**2).sum(1)
    norm = np.log(len(centers) * 2 * np.pi * sd**2)
    return logsumexp(-squares / (2 * sd**2), axis=1) - norm


def draw_ring(n):
    """Draw from the eight Gaussians."""
    return ring[rng.integers(8, size=n)] + 0.5 * rng.normal(size=(n, 2))


def draw_checkerboard(n):
    """Draw from the black squares, of side 2."""
    column, half = rng.integers(4, size=n), rng.integers(2, size=n)
    corner = np.column_stack([column, 2 * half + column % 2]) * 2 - 4
    return corner + rng.uniform(0, 2, size=(n, 2))


def log_checkerboard(x):
    """Return the log-density of the checkerboard."""
    column, row = np.floor((x + 4) / 2).T
    inside = (np.abs(x) < 4).all(1) & ((column + row) % 2 == 0)
    return np.where(inside, -np.log(32), -np.inf)


toys = {
    "eight Gaussians": (draw_ring, lambda x: log_gaussians(x, ring, 0.5)),
    "checkerboard": (draw_checkerboard, log_checkerboard),
    "two moons": (
        lambda n: make_moons(n, noise=0.1, random_state=rng.integers(2**31))[0],
        lambda x: log_gaussians(x, moons, 0.1),
    ),
}

# %%
# One model for all
# -----------------
#
# ``base="gaussian"`` withholds mixtures of Gaussians from the model: the network has to
# find every shape by itself, starting from one broad Gaussian. ``max_iter`` keeps the
# example short; the defaults train longer.

models, rows = {}, {}
print(f"{'':16} truth   model    gap   95% interval of log Z")
for name, (draw, log_density) in toys.items():
    X, X_test = draw(4000), draw(10_000)
    model = DeepEBM(base="gaussian", max_iter=40, random_state=0).fit(X)
    truth, score = log_density(X_test).mean(), model.score(X_test)
    low, high = model.log_partition_interval_
    gap = truth - score
    print(f"{name:16} {truth:.3f}  {score:.3f}  {gap:.3f}  ({low:.3f}, {high:.3f})")
    models[name], rows[name] = model, X

# %%
# What the network drew
# ---------------------
#
# Above the true density, below the learned one, on one scale for both.

fig, axes = plt.subplots(2, 3, figsize=(9.5, 6), layout="constrained")
for column, (name, (_, log_density)) in zip(axes.T, toys.items(), strict=True):
    model, X = models[name], rows[name]
    lines = np.linspace(X.min(0) - 0.3, X.max(0) + 0.3, 150).T
    grid = np.column_stack([axis.ravel() for axis in np.meshgrid(*lines)])
    pictures = np.exp(log_density(grid)), np.exp(model.score_samples(grid))
    for ax, picture in zip(column, pictures, strict=True):
        picture = picture.reshape(150, 150)
        ax.pcolormesh(*lines, picture, vmin=0, vmax=pictures[0].max())
        ax.set(xticks=[], yticks=[])
    column[0].set_title(name)
axes[0, 0].set_ylabel("true density")
axes[1, 0].set_ylabel("learned density")

# %%
# The energy itself shows what the density hides: it rises between the squares and far
# away, so that rows from nowhere are called strange.

EnergyLandscapeDisplay.from_estimator(models["checkerboard"], rows["checkerboard"])

# %%
# Samples and their diagnostics
# -----------------------------
#
# Rejection sampling from the base is exact here. The chains that ``diagnose`` runs jump
# between squares by independent proposals from the base: no chain stays apart.

SampleDisplay.from_estimator(
    models["checkerboard"], rows["checkerboard"], random_state=0
)
ChainTraceDisplay.from_estimator(models["checkerboard"], n_draws=200)

# %%
# Training
# --------
#
# ``valid_loss`` is the mean of :math:`\log b(x) - \log p(x)` over held-out rows: how
# many nats the model is ahead of its base.

TrainingHistoryDisplay.from_estimator(models["checkerboard"], ["loss", "valid_loss"])
plt.show()

# %%
# Limit
# -----
#
# Two columns and thousands of rows are easy. The gap is largest at sharp edges, which a
# network rounds off, and it grows with the number of columns and with fewer rows; real
# tables have no known density to compare with, only held-out likelihood.
