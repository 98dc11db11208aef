"""A real model in two versions: a tree and an SVM that read hand-written digits (scikit-learn's 1,797 pictures)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

NAME = "digits"
VERSIONS = ("blue", "green")
PIXELS = 64
# The kind of each version.
KIND = {"blue": "a decision tree", "green": "a support vector machine"}


@dataclass(frozen=True, slots=True)
class Data:
    """Pictures as rows of 8 x 8 pixels (0 to 16), and the digits that they show. No test picture is used in training."""

    train: Any
    train_digits: Any
    test: Any
    test_digits: Any


def data(seed: int = 1) -> Data:
    """Return the pictures; the same seed selects the same quarter for the test."""
    pixels, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(pixels, digits, test_size=0.25, random_state=seed)
    return Data(train, train_digits, test, test_digits)


def train(version: str, seed: int = 1) -> Any:
    """Return a trained classifier. Training takes about 0.1 s."""
    pictures = data(seed)
    model = DecisionTreeClassifier(random_state=seed) if version == "blue" else SVC(gamma=0.001, random_state=seed)
    return model.fit(pictures.train, pictures.train_digits)
