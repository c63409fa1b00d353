"""The scikit-learn classes: numpy in, numpy out."""
