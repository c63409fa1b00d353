"""Unseen digits: each MNIST digit held out of a convolutional energy's training.

Train on 5,000 rows of the other nine digits, without labels; tell the unseen digit from
the nine among the test rows. FOLDER holds mnist.npz with x_train, y_train, x_test and
y_test. Images are blurred, halved to 14 x 14, brought to one length, so that ink does
not decide, and cut off at `BRIGHTEST`, so that they stay images with common bounds.
Prints the AUROC per digit, mean over seeds.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skebm import DeepEBM
from skebm.energies import Denoiser
from skebm.objectives import MultiNoiseScoreMatching

BLUR, BRIGHTEST = 0.7, 0.2
"""Sd of the blur in pixels, and the largest value of an image of length 1."""


def hold_out(y_train, y_test, digit, n_train, n_test, seed):
    """Return places of training rows, which lack the digit, and of test rows."""
    rng = np.random.default_rng(seed)
    train = rng.permutation(np.flatnonzero(y_train != digit))[:n_train]
    return train, rng.permutation(len(y_test))[:n_test]


def prepared(images):
    """Return images of shape (n, 28, 28) as rows (n, 196) in [0, BRIGHTEST]."""
    blurred = gaussian_filter(images / 255.0, (0, BLUR, BLUR))
    halved = blurred.reshape(len(images), 14, 2, 14, 2).mean((2, 4))
    rows = halved.reshape(len(images), -1)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.minimum(rows / np.where(length > 0, length, 1.0), BRIGHTEST)


def energy(images_train, images_test, seed):
    """Return energies of a convolutional denoiser trained by score matching."""
    model = DeepEBM(
        Denoiser((256,), sigma=1.5, image_shape=(14, 14), channels=(16, 32)),
        objective=MultiNoiseScoreMatching((1.5, 2.0, 3.0)),
        base=None,
        normalizer=None,
        max_iter=24,
        batch_size=128,
        random_state=seed,
    )
    return model.fit(prepared(images_train)).energy(prepared(images_test))


def nearest_neighbors(images_train, images_test, seed):
    """Return mean distances to the five nearest training rows, the same rows."""
    return distances(prepared(images_train), prepared(images_test))


def nearest_pixels(images_train, images_test, seed):
    """Return mean distances to the five nearest training images, as they are."""
    rows = [images.reshape(len(images), -1) for images in (images_train, images_test)]
    return distances(*(x / 255.0 for x in rows))


def distances(X_train, X_test):
    """Return the mean distance of test rows to the five nearest training rows."""
    index = NearestNeighbors(n_neighbors=5).fit(X_train)
    return index.kneighbors(X_test)[0].mean(axis=1)


DETECTORS = {
    "convolutional energy": energy,
    "5 neighbours": nearest_neighbors,
    "5 neighbours, pixels": nearest_pixels,
}


def unseen_digit_auc(data, digits, seeds, n_train, n_test):
    """Return AUROC, a row per digit and a column per detector, mean over seeds."""
    rows = []
    for digit in digits:
        for seed in seeds:
            train, test = hold_out(
                data["y_train"], data["y_test"], digit, n_train, n_test, seed
            )
            unseen = data["y_test"][test] == digit
            images = data["x_train"][train], data["x_test"][test]
            for name, detector in DETECTORS.items():
                auc = roc_auc_score(unseen, detector(*images, seed))
                rows.append({"digit": digit, "detector": name, "auc": auc})
    table = pd.DataFrame(rows)
    table = table.pivot_table(index="digit", columns="detector", values="auc")
    return table[list(DETECTORS)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--digits", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=5000, help="training rows")
    parser.add_argument("--test", type=int, default=10_000, help="test rows")
    args = parser.parse_args()

    with np.load(args.data / "mnist.npz") as file:
        data = dict(file)
    table = unseen_digit_auc(data, args.digits, args.seeds, args.train, args.test)
    summary = pd.DataFrame({"mean": table.mean(), "worst": table.min()}).T
    print(pd.concat([table, summary]).to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
