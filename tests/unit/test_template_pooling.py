"""Which image counts how much in a template."""

import numpy as np
import pytest

from trainer.evaluation.template_pooling import choose_templates, template_images

pytestmark = pytest.mark.unit


def test_by_hand():
    # Template 7: a still (medium 1, score 0.5) and two frames of medium 2 (scores 1 and 0.8); template 3: one image.
    found = template_images(np.array([7, 3, 7, 7]), np.array([2, 9, 1, 2]), np.array([1.0, 0.9, 0.5, 0.8]))
    assert found.ids.tolist() == [3, 7]
    assert found.starts.tolist() == [0, 1, 4]
    assert found.images.tolist() == [1, 2, 0, 3]
    assert found.rows.tolist() == [0, 1, 1, 1]
    np.testing.assert_allclose(found.weights, [0.9, 0.5, 0.5, 0.4])
    assert found.find(np.array([7, 4, 3, 99])).tolist() == [1, -1, 0, -1]


def test_the_same_medium_in_two_templates_is_averaged_in_each():
    found = template_images(np.array([1, 1, 2]), np.array([5, 5, 5]), np.ones(3))
    np.testing.assert_allclose(found.weights, [0.5, 0.5, 1.0])


def test_pooled_as_written_in_the_papers():
    generator = np.random.default_rng(0)
    templates, media = generator.integers(0, 20, 300), generator.integers(0, 60, 300)
    scores, images = generator.random(300), generator.normal(size=(300, 6))
    found = template_images(templates, media, scores)
    sums = np.zeros((len(found), 6))
    np.add.at(sums, found.rows, found.weights[:, None] * images[found.images])
    for row, template in enumerate(found.ids):
        expected = np.zeros(6)
        for medium in np.unique(media[templates == template]):
            frames = np.flatnonzero((templates == template) & (media == medium))
            expected += np.mean(scores[frames, None] * images[frames], axis=0)
        np.testing.assert_allclose(sums[row], expected)
    chosen = choose_templates(found, np.array([19, 4, 7]))
    assert chosen.ids.tolist() == [4, 7, 19]
    for row, template in enumerate(chosen.ids):
        place = slice(chosen.starts[row], chosen.starts[row + 1])
        assert set(chosen.images[place]) == set(np.flatnonzero(templates == template))
        assert (chosen.rows[place] == row).all()
