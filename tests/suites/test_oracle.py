import numpy as np
import pytest

from benchmark.suites.mini import oracle, world

COUNT = 250


@pytest.fixture(scope="module")
def scenes():
    return [world.draw("test", index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def images(scenes):
    return np.stack([world.render(scene) for scene in scenes])


@pytest.fixture(scope="module")
def true_scores(scenes, images):
    return oracle.score(images, [scene.spec.caption() for scene in scenes])


def test_true_renders_score_one(true_scores):
    assert true_scores.mean() >= 0.99


def changed(scene, rng):
    """The scene's spec with an attribute that the oracle judges changed."""
    while True:
        other = world.edit(scene.spec, rng)
        if (other.texture, other.background) == (scene.spec.texture, scene.spec.background):
            return other


def test_one_changed_attribute_is_seen(scenes, true_scores):
    rng = np.random.default_rng(0)
    edits = np.stack([world.render(world.place(changed(scene, rng), rng)) for scene in scenes])
    scores = oracle.score(edits, [scene.spec.caption() for scene in scenes])
    assert scores.mean() <= 0.55
    assert (scores < true_scores).mean() >= 0.98


def test_images_of_other_captions_score_low(scenes, images):
    assert oracle.score(np.roll(images, 1, axis=0), [s.spec.caption() for s in scenes]).mean() <= 0.2


def test_noise_and_blank_images_score_zero():
    captions = world.captions("test", 8)
    rng = np.random.default_rng(0)
    assert oracle.score(rng.random((8, 32, 32, 3)), captions).mean() <= 0.05
    assert oracle.score(np.full((8, 32, 32, 3), 0.5), captions).max() == 0


def test_a_wrong_relation_halves_the_score():
    caption = "a large red circle left of a small blue square on a plain white background"
    spec = world.parse(caption)
    mirrored = world.parse(caption.replace("left of", "right of"))
    image = world.render(world.place(mirrored, np.random.default_rng(0)))
    reading = oracle.read(image, spec.caption())
    assert reading.objects == (True, True)
    assert reading.relation is False
    assert reading.score == 0.5
