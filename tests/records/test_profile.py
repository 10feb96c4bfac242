import pytest
import yaml

from benchmark.config import resolve
from benchmark.records.profile import Profile, ProfileError, read_rates
from tests.conftest import ROOT


def test_the_standard_profile_has_what_the_verdicts_need():
    profile = Profile.read(ROOT / "params.yaml")
    cells = {(key.variant, key.reward, key.seed) for key in profile.cells()}
    names = {"ddpo", "draft", "draft_k", "draft_lv", "alignprop", "refl", "drtune", "draft_coarse", "shortft"}
    for reward, seeds in {"hps": 5, "pickscore": 3, "symmetry": 3, "compressibility": 3, "combined": 3}.items():
        assert {(name, reward, seed) for name in names for seed in range(seeds)} <= cells
    assert len(cells) == len(profile.cells())  # none twice


def test_one_seed_of_everything_comes_first():
    profile = Profile.read(ROOT / "params.yaml")
    seeds = [key.seed for key in profile.cells()]
    assert seeds == sorted(seeds)
    first = {(key.variant, key.reward) for key in profile.cells() if key.seed == 0}
    assert first == {(key.variant, key.reward) for key in profile.cells()}


def test_a_variant_is_a_method_with_options():
    profile = Profile.read(ROOT / "params.yaml")
    assert profile.method("shortft-naive-jumps") == "shortft"
    assert profile.overrides("shortft-naive-jumps") == ["shortcut=naive"]
    assert profile.overrides("shortft-one-lora") == ["timestep_aware=false"]
    assert profile.method("draft_k") == "draft_k"
    assert "draft_k-trailing" in profile.tuned("hps")
    assert "draft_k-trailing" not in profile.tuned("symmetry")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("budget"), "budget"),
        (lambda p: p["groups"]["main"].update(seed=3), "Extra"),
        (lambda p: p["groups"]["control"].update(rows=["shortft-no-such"]), "groups name shortft-no-such"),
        (lambda p: p["groups"]["wide"].update(rewards=["hps"]), "the same cell"),
        (lambda p: p["groups"]["wide"]["rows"].append("draft_q"), "does not describe; methods: alignprop, ddpo"),
        (lambda p: p.update(rewards=["hps"]), "rewards"),
        (lambda p: p["gradients"].update(reward="hsp"), "gradients.reward is hsp"),
    ],
)
def test_a_bad_profile_is_one_line(change, words, tmp_path):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(content)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ProfileError, match=words) as error:
        Profile.read(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_profile_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"nothing\.yaml"):
        Profile.read(tmp_path / "nothing.yaml")
    (tmp_path / "rates.yaml").write_text("a: fast\n")
    with pytest.raises(ProfileError, match="learning rates"):
        read_rates(tmp_path / "rates.yaml")


@pytest.mark.parametrize("path", ["params.yaml", *sorted(f"profiles/{p.name}" for p in ROOT.glob("profiles/*.yaml"))])
def test_every_cell_of_every_profile_is_a_run(path):
    profile = Profile.read(ROOT / path)
    for suite, variant, reward in {(key.suite, key.variant, key.reward) for key in profile.cells()}:
        config = resolve(
            suite, profile.method(variant), reward, 0, profile.budget, "cpu", None, profile.overrides(variant)
        )
        assert config.build_suite().name == suite
        assert profile.settings.items() <= (dict(config.settings) | config.suite_options).items()
