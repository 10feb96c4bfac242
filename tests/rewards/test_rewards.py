import io

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.diffusion.ledger import Ledger
from benchmark.rewards import PIXEL_REWARDS, combine, names_in
from benchmark.suites.mini import world
from benchmark.training.counted import Counted


@pytest.fixture(scope="module")
def renders():
    return world.arrays("test", 48)[0]


def unit(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255


def test_a_mirrored_image_is_perfectly_symmetric(renders):
    left = unit(renders)[..., :16]
    symmetry = PIXEL_REWARDS["symmetry"]()
    assert symmetry(torch.cat([left, left.flip(-1)], -1), []).abs().max() == 0
    assert symmetry(unit(renders), []).max() < 0


def test_compressibility_follows_the_true_jpeg_size(renders):
    sizes = []
    for image in renders:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95)
        sizes.append(file.tell())
    scores = PIXEL_REWARDS["compressibility"]()(unit(renders), []).numpy()
    assert np.corrcoef(sizes, scores)[0, 1] < -0.95


def test_the_jpeg_reward_is_the_files_size_and_has_no_gradient(renders):
    file = io.BytesIO()
    Image.fromarray(renders[0]).save(file, "JPEG", quality=95)
    jpeg = PIXEL_REWARDS["jpeg"]()
    images = unit(renders[:2]).requires_grad_()
    assert jpeg(images, [])[0].item() == pytest.approx(-file.tell() / 1000)
    assert not jpeg.differentiable
    assert not jpeg(images, []).requires_grad


@pytest.mark.parametrize("name", [name for name, cls in PIXEL_REWARDS.items() if cls.differentiable])
def test_gradients_agree_with_finite_differences(name):
    image = torch.rand((1, 3, 16, 16), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: PIXEL_REWARDS[name]()(x, []), image.requires_grad_())


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("hps", {"hps": 1.0}),
        ("10*pickscore + 2*hps", {"pickscore": 10.0, "hps": 2.0}),
        ("-(hps - 3*symmetry)*2", {"hps": -2.0, "symmetry": 6.0}),
        ("hps + hps", {"hps": 2.0}),
    ],
)
def test_expressions(text, weights):
    assert names_in(text) == weights


@pytest.mark.parametrize(
    "text", ["", "3", "hps*hps", "hps + 1", "hps.x", "f(hps)", "__import__('os')", "0*hps", "hps/2"]
)
def test_expressions_that_are_no_sum_of_rewards(text):
    with pytest.raises(ValueError, match="reward"):
        names_in(text)


def test_a_sum_is_the_sum(renders):
    images = unit(renders)[:4]
    parts = {name: cls() for name, cls in PIXEL_REWARDS.items()}
    total = combine("2*symmetry - 0.5*compressibility", parts.__getitem__)
    expected = 2 * parts["symmetry"](images, []) - 0.5 * parts["compressibility"](images, [])
    torch.testing.assert_close(total(images, []), expected)
    assert combine("symmetry", parts.__getitem__) is parts["symmetry"]


def test_counted_calls(renders):
    ledger = Ledger()
    reward = Counted(PIXEL_REWARDS["symmetry"](), ledger)
    reward(unit(renders)[:5], [""] * 5)
    reward(unit(renders)[:3].requires_grad_(), [""] * 3)
    assert (ledger.reward_forwards, ledger.reward_backwards) == (8, 3)
