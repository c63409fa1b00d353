r"""
The whole law of a target, with intervals that hold
===================================================

**Question.** A prediction is one number. What else does a table say about the target:
how wide is its law, does it lean, has it two peaks, and can an interval be trusted?

**Exact reference.** The rows of the first part are made, so :math:`p(y \mid x)` is
known. In the second part 90% of new patients must fall in a 90% interval.

**Limit.** Coverage holds on average over rows like those of ``fit``, not for each
patient by itself, and the coverage of a small test part is itself uncertain: three
percent for 100 rows.
"""

# %%
# Two branches
# ------------
#
# The target is near :math:`m(x)` or near :math:`-m(x)`, and x decides how often. The
# mean lies between the branches, where no target ever is.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit
from scipy.stats import norm
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split

from skebm import EBMRegressor

rng = np.random.default_rng(0)


def middle(x):
    return 1 + 0.5 * np.sin(x)


x = rng.uniform(-3, 3, 3000)
y = np.where(rng.random(len(x)) < expit(x), 1, -1) * middle(x)
y = y + 0.2 * rng.normal(size=len(x))
model = EBMRegressor(random_state=0).fit(x[:, None], y)

at, levels = np.linspace(-3, 3, 121), np.linspace(-2.2, 2.2, 161)
grid_x, grid_y = (g.ravel() for g in np.meshgrid(at, levels))
found = model.log_density(grid_x[:, None], grid_y)
exact = np.logaddexp(
    np.log(expit(grid_x)) + norm.logpdf(grid_y, middle(grid_x), 0.2),
    np.log(expit(-grid_x)) + norm.logpdf(grid_y, -middle(grid_x), 0.2),
)
cell = (at[1] - at[0]) * (levels[1] - levels[0])
divergence = np.sum(np.exp(exact) * (exact - found)) * cell / 6
print(f"mean KL(true || model) over x: {divergence:.3f} nats")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
titles = "true p(y | x)", "EBMRegressor, its mean and 90% interval"
for ax, log_p, title in zip(axes, (exact, found), titles, strict=True):
    density = np.exp(log_p).reshape(len(levels), len(at))
    ax.pcolormesh(at, levels, density, cmap="Blues", vmax=2, rasterized=True)
    ax.set(title=title, xlabel="x")
axes[0].set_ylabel("y")
axes[1].plot(at, model.predict(at[:, None]), color="tab:orange")
axes[1].plot(at, model.predict_interval(at[:, None]), color="black", lw=0.8)
plt.show()

# %%
# Diabetes
# --------
#
# 442 patients, ten measurements, and how far the disease has gone a year later. Every
# member of the model is held out from a fifth of the training rows, and these rows
# calibrate the intervals: none is lost to a calibration set.

X, y = load_diabetes(return_X_y=True)
rows = []
for seed in range(5):
    X1, X2, y1, y2 = train_test_split(X, y, test_size=0.25, random_state=seed)
    model = EBMRegressor(random_state=seed).fit(X1, y1)
    ridge = RidgeCV(np.logspace(-4, 2, 13)).fit(X1, y1)
    width = np.sqrt(np.sum((y1 - ridge.predict(X1)) ** 2) / (len(y1) - 11))
    low, high = model.predict_interval(X2, coverage=0.9).T
    rows.append(
        [
            np.mean((low <= y2) & (y2 <= high)),
            model.log_density(X2, y2).mean(),
            norm.logpdf(y2, ridge.predict(X2), width).mean(),
            model.score(X2, y2),
            ridge.score(X2, y2),
        ]
    )
covered, ours, gaussian, r2, r2_ridge = np.mean(rows, axis=0)
print(f"in the 90% interval: {covered:.1%}")
print(f"log-density: {ours:.3f} nats; ridge with a Gaussian: {gaussian:.3f}")
print(f"R2: {r2:.3f}; ridge: {r2_ridge:.3f}")

# %%
# The intervals are wider where the disease has gone further, and need not lie evenly
# around the prediction.

order = np.argsort(model.predict(X2))
places = np.arange(len(order))
figure, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
ax.vlines(places, low[order], high[order], color="tab:blue", alpha=0.4, lw=3)
ax.plot(places, model.predict(X2)[order], color="tab:blue", label="mean, 90% interval")
missed = (y2[order] < low[order]) | (y2[order] > high[order])
ax.scatter(places[~missed], y2[order][~missed], s=9, color="black", label="patients")
ax.scatter(places[missed], y2[order][missed], s=12, color="tab:red", label="missed")
ax.set(xlabel="patients of one test part, by prediction", ylabel="progression")
ax.legend(loc="upper left")
plt.show()
