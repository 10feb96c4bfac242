import hashlib

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from benchmark.suites.mini import card, oracle, reward_models, world


def specs(split, count):
    return [world.draw(split, index).spec for index in range(count)]


def test_captions_parse_back_to_their_specs():
    for split in world.SPLITS:
        for spec in specs(split, 100):
            assert world.parse(spec.caption()) == spec


@pytest.mark.parametrize("text", ["", "a red dog on a plain white background", "a red circle"])
def test_text_outside_the_grammar_is_refused(text):
    with pytest.raises(ValueError, match="not a caption"):
        world.parse(text)


def test_splits_share_no_caption():
    seen = [set(world.captions(split, 300)) for split in world.SPLITS]
    for i, first in enumerate(seen):
        for second in seen[i + 1 :]:
            assert not first & second


def test_training_never_shows_a_held_out_combination_but_every_word():
    words = set()
    for spec in specs("train", 3000):
        assert not spec.is_held_out()
        words |= set(spec.caption().split())
    assert set(world.COLOURS) | set(world.SHAPES) <= words
    assert all(spec.is_held_out() for spec in specs("combinations", 200))


def test_edits_change_something_and_stay_clear_of_held_out_combinations():
    rng = np.random.default_rng(0)
    for spec in specs("train", 500):
        other = world.edit(spec, rng)
        assert other != spec
        assert not other.is_held_out()
        assert world.parse(other.caption()) == other


def test_the_dataset_is_the_same_every_time():
    first, second = world.dataset("test", 5), world.dataset("test", 5)
    assert set(first.column_names) == {"caption", "scene", "image"}
    for a, b in zip(first, second, strict=True):
        assert a["caption"] == b["caption"]
        assert a["scene"] == b["scene"]
        assert np.array_equal(a["image"], b["image"])
    assert np.array_equal(world.arrays("test", 5)[0][3], np.asarray(first[3]["image"]))


def test_a_render_shows_the_named_colours():
    scene = world.draw("test", 0)
    pixels = world.render(scene).reshape(-1, 3)
    for placed in scene.placed:
        assert np.abs(pixels - placed.rgb).sum(axis=1).min() < 0.02


def test_captions_pictures_and_scores_are_those_of_the_runs_on_record():
    """Where one of them has to change, runs on record are of another suite: raise PROTOCOL_VERSION."""
    texts = [text for split in world.SPLITS for text in world.captions(split, 100)]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == "95f00679c18816f3"
    images, captions = world.arrays("test", 60)
    assert (images.mean(), images.std()) == pytest.approx((121.366455, 81.631243), abs=1e-5)
    rng = np.random.default_rng(0)
    edits = np.stack([world.render(world.place(world.edit(world.parse(text), rng), rng)) for text in captions])
    others = [images / 255, np.roll(images, 1, axis=0) / 255, edits]
    assert [oracle.score(other, captions).sum() for other in others] == [60, 1.25, 31]
    tokenizer = CLIPTokenizer.from_pretrained(card.PIPELINE / "tokenizer")
    rewards = [reward_models.load(name, tokenizer, card.REWARDS, "") for name in reward_models.NAMES]
    scores = [reward(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, captions).mean() for reward in rewards]
    assert [float(score) for score in scores] == pytest.approx([0.828073, 0.875554, 0.619383], abs=1e-4)
