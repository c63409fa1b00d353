r"""
A digit that nobody showed
==========================

**Question.** A classifier is trained on nine digits and then meets a tenth. Can it say
that it has never seen one, and are its probabilities honest on those it knows?

**Exact reference.** Which pictures show the unseen digit is known. The density of
:class:`~skebm.JEMClassifier` is a kernel density in the units of the rows, with
:math:`\log Z` exact: it is compared below with scikit-learn's.

**Limit.** Pictures of 8x8 pixels are small and clean, and one digit is one kind of
strange row; ``benchmarks/joint.py`` goes through all ten. The draws are stored pictures
with noise as wide as the kernel.
"""

# %%
# Two classifiers of nine digits
# ------------------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import EnergyOutlierDetector, JEMClassifier
from skebm.metrics import fpr_at_tpr
from skebm.objectives import OutlierExposure

UNSEEN = 3
X, y = load_digits(return_X_y=True)
unseen, X, y = X[y == UNSEEN], X[y != UNSEEN], y[y != UNSEEN]
X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
usual = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, y)
model = JEMClassifier(random_state=0).fit(X, y)
print(f"recognised by logistic regression: {usual.score(X_test, y_test):.1%}")
print(f"recognised by JEMClassifier:       {model.score(X_test, y_test):.1%}")

z = [rows / model.scale_ for rows in (X, X_test)]
kernel = KernelDensity(bandwidth=float(model.energy_.patterns.width)).fit(z[0])
exact = kernel.score_samples(z[1]) - np.log(model.scale_).sum()
difference = np.abs(model.score_samples(X_test) - exact).max()
print(f"largest difference of log p(x) to a kernel density: {difference:.0e} nats")

# %%
# Known digits against the unseen one
# -----------------------------------
#
# Four scores: the largest probability of logistic regression; the energy of its logits,
# which :class:`~skebm.EnergyOutlierDetector` reads from any classifier; log p(x); and
# the energy of logits that were exposed to outliers, training rows with their columns
# permuted one by one. The detectors only order rows here; to set a threshold, calibrate
# them on rows of their own.

rng = np.random.default_rng(0)
exposed = JEMClassifier(
    generative="network",
    objective=OutlierExposure(rng.permuted(X, axis=0)),
    calibration=None,
    random_state=0,
).fit(X, y)
logits = EnergyOutlierDetector(FrozenEstimator(usual)).fit(X_test)
scores = {
    "largest probability": lambda rows: usual.predict_proba(rows).max(1),
    "energy of its logits": logits.score_samples,
    "JEMClassifier, log p(x)": model.score_samples,
    "exposed to outliers": exposed.score_samples,
}
truth = np.repeat([0, 1], [len(X_test), len(unseen)])
rows = np.vstack([X_test, unseen])
print(f"{'':24} AUROC  FPR95")
for name, score in scores.items():
    s = -score(rows)
    print(f"{name:24} {roc_auc_score(truth, s):.3f}  {fpr_at_tpr(truth, s):.3f}")

# %%
# The energy of logits that were trained on labels alone orders these rows worse than
# the largest probability does: logits tell what the labels needed, and grow with
# distance. Exposure helps, though none of the outliers was a digit. The density of the
# rows, of which labels know nothing, is ahead of both.

# %%
# Histograms, reliability, draws
# ------------------------------
#
# In the diagram of reliability a point stands for rows of similar confidence; an honest
# classifier stays on the diagonal. Below it, one exact draw of each known digit from
# :math:`p(x \mid y)`.


def reliability(p):
    """Return confidence and share of right labels in bins, and their mean gap."""
    confidence, right = p.max(1), model.classes_[p.argmax(1)] == y_test
    place = np.minimum((10 * confidence).astype(int), 9)
    bins = [place == b for b in range(10) if (place == b).sum() >= 10]
    sure, share = np.array([(confidence[b].mean(), right[b].mean()) for b in bins]).T
    return (
        sure,
        share,
        np.average(np.abs(sure - share), weights=[b.sum() for b in bins]),
    )


figure = plt.figure(figsize=(10, 5), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=[3, 1])
axes = top.subplots(1, 3)
names = "largest probability", "JEMClassifier, log p(x)"
for ax, name in zip(axes[:2], names, strict=True):
    parts = {"known": scores[name](X_test), "unseen": scores[name](unseen)}
    bins = np.histogram_bin_edges(np.concatenate(list(parts.values())), 40)
    for part, color in zip(parts, ["tab:blue", "tab:orange"], strict=True):
        ax.hist(parts[part], bins, density=True, alpha=0.6, color=color, label=part)
    ax.set(xlabel=name, yticks=[])
    ax.legend(loc="upper left")
classifiers = {"logistic regression": usual, "JEMClassifier": model}
for (name, classifier), color in zip(
    classifiers.items(), ["gray", "tab:green"], strict=True
):
    sure, share, gap = reliability(classifier.predict_proba(X_test))
    axes[2].plot(sure, share, "o-", color=color, label=f"{name}, mean gap {gap:.3f}")
axes[2].axline((1, 1), slope=1, color="black", linewidth=0.5)
axes[2].set(xlabel="confidence", ylabel="share of right labels")
axes[2].legend(loc="lower right", fontsize=8)
for digit, ax in zip(model.classes_, bottom.subplots(1, 9), strict=True):
    drawn = model.sample(1, y=digit, random_state=1)
    ax.imshow(drawn.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
    ax.set(xticks=[], yticks=[], title=f"y = {digit}")
plt.show()
