"""MovieLens: the error of predicted ratings, in five random folds.

``--data`` names a folder with movielens100k.npz: user, item, rating, one rating each.
The folds are a seeded shuffle of the ratings; each is predicted from the other four.
Prints the root mean squared error of RatingRBM() and of two baselines: the item's mean,
and a ridge regression on one-hot users and items.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skebm import RatingRBM


def load(folder):
    """Return the ratings as a long table."""
    arrays = np.load(Path(folder) / "movielens100k.npz")
    return pd.DataFrame({name: arrays[name] for name in ("user", "item", "rating")})


def folds(n, n_folds, seed):
    """Return the places of training and test ratings of every fold."""
    parts = np.array_split(np.random.default_rng(seed).permutation(n), n_folds)
    for i, test in enumerate(parts):
        yield np.concatenate([p for j, p in enumerate(parts) if j != i]), test


def machines(seen, new):
    """Return ratings predicted by RatingRBM with its defaults."""
    model = RatingRBM(random_state=0).fit(seen)
    return model.predict(new["user"], new["item"])


def item_means(seen, new):
    """Return the mean rating of each item, that of all where it has none."""
    means = seen.groupby("item")["rating"].mean()
    return new["item"].map(means).fillna(seen["rating"].mean())


def biases(seen, new):
    """Return the overall mean plus the effects of user and item."""
    columns = ["user", "item"]
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge(alpha=4.0))
    return model.fit(seen[columns], seen["rating"]).predict(new[columns])


PREDICTORS = {
    "RatingRBM": machines,
    "user and item effects": biases,
    "item means": item_means,
}


def errors(ratings, n_folds, seed):
    """Return error and CPU seconds, a row per fold and predictor."""
    rows = []
    for fold, (train, test) in enumerate(folds(len(ratings), n_folds, seed)):
        seen, new = ratings.iloc[train], ratings.iloc[test]
        for name, predictor in PREDICTORS.items():
            start = time.process_time()
            rmse = root_mean_squared_error(new["rating"], predictor(seen, new))
            seconds = time.process_time() - start
            rows.append(
                {"fold": fold, "predictor": name, "rmse": rmse, "seconds": seconds}
            )
            print(f"fold {fold}  {name:24} {rmse:.4f}  {seconds:6.1f} s", flush=True)
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    table = errors(load(args.data), args.folds, args.seed)
    means = table.groupby("predictor", sort=False)[["rmse", "seconds"]].mean()
    print(means.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
