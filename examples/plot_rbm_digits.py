"""
Restricted Boltzmann machine features for digit classification
==============================================================

**Question.** scikit-learn's gallery has an example in which the features of a
:class:`sklearn.neural_network.BernoulliRBM` help a logistic regression on small images
of digits. Does :class:`skebm.BernoulliRBM` do the same when only the import is changed,
and what else does it tell?

**Exact reference.** With 16 hidden bits the normaliser is a sum over 65,536 states, so
both machines can be judged by their exact log-likelihood on rows that neither saw.
"""

# %%
# The same pipeline twice
# -----------------------
#
# As in scikit-learn's example, every image is shifted by a pixel in four directions, so
# that five images come of one, and pixels between 0 and 1 are taken for probabilities
# of bits. Both machines run with the settings of that example. For features, the
# gradient is better left uncentred: centring makes hidden bits that are on half of the
# time, which describe a row more evenly but tell classes apart less well.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import shift
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, minmax_scale

import skebm
from skebm.objectives import RBMLikelihood

X, y = load_digits(return_X_y=True)
moves = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
images = X.reshape(-1, 8, 8)
X = np.vstack([shift(images, (0, *m), order=0).reshape(-1, 64) for m in moves])
X, y = minmax_scale(X), np.tile(y, len(moves))
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=0)


def accuracy(*features):
    """Return the test accuracy of a logistic regression on features."""
    scaled = make_pipeline(
        *features, StandardScaler(), LogisticRegression(max_iter=500)
    )
    return scaled.fit(X_train, y_train).score(X_test, y_test)


settings = {"n_components": 100, "learning_rate": 0.06, "n_iter": 10, "batch_size": 10}
plain = RBMLikelihood(centered=False)
theirs = neural_network.BernoulliRBM(**settings, random_state=0)
ours = skebm.BernoulliRBM(**settings, objective=plain, random_state=0)
for name, features in [("pixels", []), ("sklearn", [theirs]), ("skebm", [ours])]:
    print(f"{name:8} {accuracy(*features):.3f}")

# %%
# Learned filters
# ---------------
#
# A row of ``components_`` is what one hidden bit looks for.

rbm = skebm.BernoulliRBM(**settings, objective=plain, random_state=0).fit(X_train)
fig, axes = plt.subplots(5, 10, figsize=(8, 4.2))
for axis, weights in zip(axes.flat, rbm.components_, strict=False):
    axis.imshow(weights.reshape(8, 8), cmap="RdBu_r", vmin=-3, vmax=3)
    axis.set_axis_off()
fig.suptitle("What 50 of the 100 hidden bits look for")
plt.show()

# %%
# A likelihood, not a proxy
# -------------------------
#
# ``score`` is the mean log-likelihood in nats. Here for black and white digits and 16
# hidden bits, where log Z is exact; ``pseudo_log_likelihood`` is what scikit-learn's
# ``score_samples`` estimates by flipping one pixel at random.

bits = (load_digits().data >= 8).astype(float)
train, test = train_test_split(bits, test_size=0.2, random_state=0)
small = skebm.BernoulliRBM(n_components=16, n_iter=400, random_state=0).fit(train)
print(f"log-likelihood {small.score(test):.2f} nats")
print(f"pseudo-log-likelihood {small.pseudo_log_likelihood(test).mean():.2f} nats")

# %%
# Draws, and the lower half given the upper
# -----------------------------------------
#
# ``sample(given=...)`` holds pixels fixed and draws the others; NaN entries can also go
# into ``fit``, ``score_samples`` and ``impute``.

upper = dict(enumerate(test[3][:32]))
rows = [
    ("test row", np.tile(test[3], (8, 1))),
    ("given its upper half", small.sample(8, given=upper, random_state=0)),
    ("new rows", small.sample(8, random_state=1)),
]
fig, axes = plt.subplots(3, 8, figsize=(8, 3.6), layout="constrained")
for line, (title, drawn) in zip(axes, rows, strict=True):
    line[0].set_title(title, loc="left", fontsize=10)
    for axis, row in zip(line, drawn, strict=True):
        axis.imshow(row.reshape(8, 8), cmap="gray_r")
        axis.set_axis_off()
plt.show()

# %%
# **Limit.** The bits of a draw are independent given the hidden ones, so draws of small
# machines look speckled; and the likelihood of a machine with many hidden bits rests on
# annealing, with an interval that ``log_partition_interval_`` gives.
