"""The demo's model: the same pictures and the same predictions for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from controlplane.demo import models


def test_test_pictures_are_never_used_in_training() -> None:
    data = models.data()
    assert data.train.shape[1] == data.test.shape[1] == models.PIXELS
    assert len(data.train) + len(data.test) == 1797
    assert len(data.test) == 450
    assert len(data.train_digits) == len(data.train)


@pytest.mark.parametrize("version", models.VERSIONS)
def test_the_same_seed_trains_the_same_model(version: str) -> None:
    data = models.data(seed=7)
    first, second = (models.train(version, seed=7).predict(data.test) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(data.test, models.data(seed=7).test)
    assert not np.array_equal(data.test, models.data(seed=8).test)
    assert models.KIND[version]
