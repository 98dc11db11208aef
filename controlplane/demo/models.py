"""A real model in two versions: hand-written digits (scikit-learn's own 1,797 pictures), read by a tree and by an SVM."""

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
WHAT = {"blue": "a decision tree", "green": "a support vector machine"}


@dataclass(frozen=True, slots=True)
class Data:
    """Pictures of 8 x 8 pixels (0 to 16), flat, and the digits they show; the test pictures are never trained on."""

    train: Any
    train_digits: Any
    test: Any
    test_digits: Any


def data(seed: int = 1) -> Data:
    """The same pictures for the same seed, a quarter of them for the test."""
    pixels, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(pixels, digits, test_size=0.25, random_state=seed)
    return Data(train, train_digits, test, test_digits)


def train(version: str, seed: int = 1) -> Any:
    """A trained classifier; takes about a tenth of a second."""
    given = data(seed)
    model = DecisionTreeClassifier(random_state=seed) if version == "blue" else SVC(gamma=0.001, random_state=seed)
    return model.fit(given.train, given.train_digits)
