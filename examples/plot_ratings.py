r"""
Recommending from ratings with holes
====================================

**Question.** Users rate a few items each. Does a restricted Boltzmann machine that
leaves unrated items out find what a user would like, and what does a temperature do to
its recommendations?

**Exact reference.** The preferences are made: user and item have five traits each and
:math:`u'v` says how much the one likes the other, so every unrated pair has a known
answer.

**Limit.** Made tastes follow five directions without drift or fashion; real ones do
not. Which items were rated is random here, while people rate what they chose.
"""

# %%
# Preferences of rank five
# ------------------------
#
# 200 users, 100 items; 30% of the pairs are rated, from one to five stars by the
# quintile of :math:`u'v`. NaN means unrated.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ndcg_score

from skebm import RatingRBM

rng = np.random.default_rng(0)
like = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 100))
stars = 1 + np.searchsorted(np.quantile(like, [0.2, 0.4, 0.6, 0.8]), like)
rated = rng.random(like.shape) < 0.3
X = np.where(rated, stars, np.nan)

# %%
# Ranking the items that a user has not rated
# -------------------------------------------
#
# NDCG@10 is 1 when the ten items put first are the ten that the user likes best.

model = RatingRBM(random_state=0).fit(X)
users, items = np.indices(X.shape).reshape(2, -1)
expected = model.predict(users, items).reshape(X.shape)


def ndcg(scores):
    """Return the mean NDCG@10 over the users, on unrated items."""
    found = [
        ndcg_score([s[~seen] - 1], [p[~seen]], k=10)
        for s, p, seen in zip(stars, scores, rated, strict=True)
    ]
    return np.mean(found)


means = np.tile(np.nanmean(X, 0), (len(X), 1))
for name, scores in {
    "RatingRBM": expected,
    "item means": means,
    "chance": rng.random(X.shape),
}.items():
    print(f"{name:12} NDCG@10 {ndcg(scores):.3f}")

# %%
# The whole distribution of a rating
# ----------------------------------
#
# ``level_proba`` has the probability of each number of stars. Where it says 70%, do
# these stars come in 70% of the cases? More often (second panel): the mean of two
# machines with small weights is cautious, and these preferences have no noise.

row, column = np.nonzero(~rated)
p = model.level_proba(row, column)
hit = np.asarray(model.levels_)[None] == stars[~rated][:, None]
edges = np.linspace(0, 1, 11)
place = np.digitize(p.ravel(), edges[1:-1])
said, happened = (
    np.bincount(place, a.ravel(), minlength=10) / np.bincount(place, minlength=10)
    for a in (p, hit)
)

# %%
# From the best items to any item
# -------------------------------
#
# ``recommend`` draws items with probability proportional to
# :math:`\exp(\text{expected rating} / T)`. Cold, it returns the best ones; hot, all
# items alike.

temperatures = [0.0, 0.1, 0.3, 1.0, 3.0, np.inf]
liking = []
for temperature in temperatures:
    drawn = model.recommend(np.arange(200), 10, temperature=temperature)
    liking.append(np.take_along_axis(stars, drawn, 1).mean())
    print(f"T = {temperature:<4} mean true stars of what is shown {liking[-1]:.2f}")

figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
axes[0].violinplot(
    [expected[(stars == k) & ~rated] for k in range(1, 6)], showmedians=True
)
axes[0].set(xlabel="true stars", ylabel="expected rating", title="Unrated pairs")
axes[1].plot([0, 1], [0, 1], color="0.7", linestyle="--")
axes[1].plot(said, happened, marker="o")
axes[1].set(xlabel="probability said", ylabel="share that came", title="Calibration")
axes[2].plot(range(len(temperatures)), liking, marker="o")
axes[2].axhline(stars[~rated].mean(), color="0.7", linestyle="--", label="any item")
labels = [f"{t:g}" if np.isfinite(t) else "inf" for t in temperatures]
axes[2].set_xticks(range(len(temperatures)), labels)
axes[2].set(xlabel="temperature", ylabel="true stars shown", title="Recommendations")
axes[2].legend()
plt.show()
