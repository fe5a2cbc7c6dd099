from __future__ import annotations

import pytest

from ld_hub.optim.batch_search import largest_batch


@pytest.mark.parametrize("most", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 8, 9, 31, 100, 5000])
def test_the_largest_batch_within_an_eighth(limit, most):
    tried = []

    def fits(images):
        assert 1 <= images <= most
        tried.append(images)
        return images <= limit

    found, right = largest_batch(fits, most), min(limit, most)
    assert found <= right and right - found <= right / 8
    assert len(tried) == len(set(tried)) <= 20
    assert found == right or right > 8
