"""Suite sd15 on files of its shapes with random weights, narrow: every method, and everything that may be missing."""

from __future__ import annotations

import re
import shutil
import socket

import pytest
import torch
from diffusers import StableDiffusionPipeline
from rich.console import Console
from typer.testing import CliRunner

import methods
from benchmark import fidelity, gradients, records, suites, tune
from benchmark.config import resolve
from benchmark.diffusion import sampler_plan
from benchmark.errors import InputError
from benchmark.records.profile import Profile
from benchmark.records.reader import read_tree
from benchmark.records.results import Results
from benchmark.rewards.published.pickscore import PickScore
from benchmark.run import main, training_timesteps
from benchmark.suites.sd15 import prompts, random_weights
from benchmark.suites.sd15.suite import StableDiffusion15
from benchmark.training.cell import Cell
from benchmark.training.workbench import Workbench
from tests.conftest import ROOT, needs

SMALL = ["batch=2", "rank=4", "test_prompts=8", "curve_points=1", "train_prompts=16"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd15")
    random_weights.build(folder, ["pickscore", "aesthetic"], narrow=True, pixels=64)
    return folder


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Everything is local: a connection would be a mistake."""

    def refuse(self, address):
        raise AssertionError(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def eight_steps(monkeypatch):
    """A chain of them shows as much as one of 50, of methods that are defined on any."""
    monkeypatch.setattr(StableDiffusion15, "steps", 8)


def configure(weights, method="shortft", reward="pickscore", settings=(), budget="1step"):
    given = [*SMALL, f"weights={weights}", *settings]
    return resolve("sd15", method, reward, 0, budget, "cpu", None, given)


def take_a_step(config, tmp_path) -> Cell:
    cell = Cell(config, tmp_path, tmp_path, Console(quiet=True))
    before = [p.detach().clone() for p in cell.policy.parameters()]
    (row,) = cell.trainer.steps()
    assert row["grad_norm"] > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, cell.policy.parameters(), strict=True))
    assert {p.dtype for p in cell.policy.parameters()} == {torch.float32}
    return cell


@pytest.mark.parametrize("method", [m for m in methods.names() if ":" not in m])
def test_every_method_takes_a_step(method, weights, tmp_path):
    few = ["samples=2", "minibatches=1"] if method == "ddpo" else []
    cell = take_a_step(configure(weights, method, settings=["micro_batch=1", *few]), tmp_path)
    assert cell.executor.timesteps == list(range(981, 0, -20))


@pytest.mark.parametrize("method", ["shortft", "refl"])
def test_in_bfloat16(method, weights, tmp_path):
    cell = take_a_step(configure(weights, method, settings=["precision=bfloat16"]), tmp_path)
    assert cell.suite.pipeline.unet.conv_in.weight.dtype == torch.bfloat16
    assert cell.suite.shortcut.conv_in.weight.dtype == torch.bfloat16
    assert cell.suite.reward("pickscore").clip.network.dtype == torch.float32  # what is reported


@pytest.mark.usefixtures("eight_steps")
@pytest.mark.parametrize("reward", ["hps", "hps20", "imagereward"])
def test_rewards_of_packages_guide_it_too(reward, tmp_path):
    needs(*(["ImageReward", "timm"] if reward == "imagereward" else ["open_clip"]))
    random_weights.build(tmp_path / "weights", [reward], narrow=True, pixels=64)
    take_a_step(configure(tmp_path / "weights", "draft_k", reward, ["precision=bfloat16"]), tmp_path)


@pytest.mark.full_size("SD15_FULL_SIZE")  # 16 GB of memory, half an hour
@pytest.mark.parametrize("method", [m for m in methods.names() if ":" not in m])
def test_every_method_takes_a_step_at_the_true_architecture(method, tmp_path_factory, tmp_path):
    folder = tmp_path_factory.getbasetemp() / "full"
    if not folder.exists():
        random_weights.build(folder, ["clipscore"], pixels=64)
    take_a_step(configure(folder, method, "clipscore", ["batch=1", "rank=128"]), tmp_path)


@pytest.mark.usefixtures("eight_steps")
def test_parts_of_a_batch_add_up_to_it(weights, tmp_path):
    gradients = []
    for parts in ("null", "1"):
        config = configure(weights, "draft_k", settings=[f"micro_batch={parts}", "guidance_scale=1"])
        cell = Cell(config, tmp_path, tmp_path, Console(quiet=True))
        (reward,) = cell.trainer._updates()
        gradients.append((reward, torch.cat([p.grad.flatten() for p in cell.policy.parameters()])))
    assert len(cell.trainer.batches(cell.trainer.parts)) == 2
    (whole_reward, whole), (reward, sum_of_parts) = gradients
    assert reward == pytest.approx(whole_reward, abs=1e-4)
    assert (sum_of_parts - whole).norm() < 0.01 * whole.norm()


def test_a_batch_that_does_not_divide_is_one_line(weights, tmp_path):
    command = ["--suite", "sd15", "--method", "draft_k", "--reward", "pickscore", "--out", str(tmp_path)]
    settings = [f"--set={text}" for text in (*SMALL, f"weights={weights}", "batch=4", "micro_batch=3")]
    done = CliRunner().invoke(main, [*command, *settings])
    assert done.exit_code == 2
    assert "batch=4 does not divide into 1 processes x 3 prompts" in done.output


@pytest.mark.usefixtures("base")
def test_a_whole_run_is_marked_and_tables_refuse_it(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(StableDiffusion15, "chunk", 64)  # faster where images are small
    model = str(weights / "stable-diffusion-v1-5")
    command = ["--suite", "sd15", "--model", model, "--reward", "aesthetic", "--budget", "1step"]
    command += ["--out", str(tmp_path)]
    command += [f"--set={text}" for text in (*SMALL, f"weights={weights}")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "weights are random" in done.output
    (folder,) = (path.parent for path in tmp_path.rglob("summary.json"))
    summary = records.read_summary(folder)
    assert summary.random_weights
    there = {"pickscore", "clipscore", "symmetry", "compressibility", "jpeg"}  # no file of hps or imagereward is
    assert set(summary.heldout) == there
    config = records.read_json(folder / "run.json")["config"]
    assert config["suite_options"] == {"model": model, "weights": str(weights)}
    assert config["settings"]["rank"] == 4
    runs, _, problems = read_tree(tmp_path)
    assert runs.empty
    assert problems.problem.str.contains("random weights").all()
    again = CliRunner().invoke(main, command)
    assert "this run is done" in again.output


def test_the_shortcut_is_the_base_with_the_published_kind_of_lora(weights):
    suite = suites.find("sd15", weights=str(weights)).load()
    x, embeds = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), suite.embed(["a cat"])
    plain = StableDiffusionPipeline.from_pretrained(weights / "stable-diffusion-v1-5", safety_checker=None)
    with torch.no_grad():
        base, ours = (unet(x, 501, embeds).sample for unet in (plain.unet, suite.shortcut))
        plain.load_lora_weights(weights / "hyper-sd", weight_name="Hyper-SD15-4steps-lora.safetensors")
        torch.testing.assert_close(ours, plain.unet(x, 501, embeds).sample, rtol=1e-3, atol=1e-4)
    assert (ours - base).abs().max() > 1e-3


def test_sampling_is_the_pipelines_own(weights):
    """Fresh LoRA: the executor's 50 guided steps are what diffusers' pipeline does with these weights."""
    config = configure(weights, settings=["guidance_scale=1.5"])  # more would blow the schedulers' rounding up
    bench = Workbench(config, slots=1, shortcut=False)
    suite, executor = bench.suite, bench.executor
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = executor.run(sampler_plan(executor.timesteps, lambda t: (1,)), x, suite.embed(["a cat"]))
        options = {"num_inference_steps": 50, "guidance_scale": 1.5, "latents": x, "output_type": "latent"}
        torch.testing.assert_close(ours, suite.pipeline("a cat", **options).images, rtol=1e-3, atol=1e-3)


MODEL, UNET = "stable-diffusion-v1-5", "unet/diffusion_pytorch_model.safetensors"
MISSING = {
    f"{MODEL}/{UNET}": rf"suite sd15: .*{MODEL} lacks {UNET}: hf download {MODEL}/{MODEL} {UNET} --local-dir .*3\.4",
    "hyper-sd/Hyper-SD15-4steps-lora.safetensors": "lacks Hyper-SD15-4steps-lora.*ByteDance/Hyper-SD",
    "hpdv2/train.json": "lacks train.json: hf download --repo-type dataset ymhao/HPDv2 train.json",
    "pickscore/model.safetensors": "pickscore: .*lacks model.safetensors: hf download yuvalkirstain/PickScore_v1",
}


@pytest.mark.parametrize(("file", "line"), MISSING.items())
@pytest.mark.parametrize("half", [False, True])
def test_a_missing_or_half_file_is_one_line_before_anything_is_loaded(file, line, half, weights, tmp_path, monkeypatch):
    copy = tmp_path / "weights"
    shutil.copytree(weights, copy)
    path = copy / file
    if half:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        line = line.replace("lacks", "has only a part of")
    else:
        path.unlink()
    monkeypatch.setattr(StableDiffusion15, "load_pipeline", lambda self: pytest.fail("loads"))
    settings = [f"--set={text}" for text in (*SMALL, f"weights={copy}")]
    done = CliRunner().invoke(main, ["--suite", "sd15", "--reward", "pickscore", "--out", str(tmp_path), *settings])
    assert done.exit_code == 2
    (problem,) = [text for text in done.output.splitlines() if text.startswith("error: ")]
    assert re.search(line, problem), problem


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["model=/nowhere/at-all"], "model /nowhere/at-all is no folder"),
        (["model=someone/some-model"], "someone--some-model lacks model_index.json"),
        (["model=someone/some-model"], "hf download someone/some-model"),
        (["few_step=my.safetensors"], "few_step my.safetensors is no file; expected hyper-sd, tcd or a LoRA file"),
        (["prompt_set=poems"], "Input should be 'hpdv2' or 'animals', got 'poems'"),
    ],
)
def test_wrong_options_are_one_line(settings, line, weights, tmp_path):
    given = [f"--set={text}" for text in (*SMALL, f"weights={weights}", *settings)]
    done = CliRunner().invoke(main, ["--suite", "sd15", "--reward", "pickscore", "--out", str(tmp_path), *given])
    assert done.exit_code == 2
    (problem,) = [text for text in done.output.splitlines() if text.startswith("error: ")]
    assert line in problem


def test_a_reward_without_its_package_is_one_line_and_is_not_scored(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(PickScore, "packages", ("no_such_package",))
    assert "pickscore" not in suites.find("sd15", weights=str(weights)).scored_rewards()
    given = [f"--set={text}" for text in (*SMALL, f"weights={weights}")]
    done = CliRunner().invoke(main, ["--suite", "sd15", "--reward", "pickscore", "--out", str(tmp_path), *given])
    assert done.exit_code == 2
    assert "error: pickscore: needs the package no_such_package" in done.output


def test_half_a_folder_of_somebodys_own_is_one_line_without_a_command(weights, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(weights / "stable-diffusion-v1-5", model)
    (model / "vae/config.json").unlink()
    with pytest.raises(InputError, match=r"model lacks vae/config\.json$"):
        suites.find("sd15", model=str(model), weights=str(weights)).check()


def test_there_is_nothing_to_tune_on_random_weights(weights, tmp_path):
    content = (ROOT / "profiles/sd15.yaml").read_text()
    path = tmp_path / "profile.yaml"
    path.write_text(content.replace("settings: {", f"settings: {{weights: {weights}, "))
    done = CliRunner().invoke(tune.main, ["--params", str(path), "--suite", "sd15", "--out", str(tmp_path)])
    assert (done.exit_code, "random weights" in done.output) == (2, True)


def test_settings_that_are_not_the_suites_are_passed_on(weights):
    given = [f"weights={weights}", "rank=16", "precision=float32"]
    config = resolve("sd15", "draft_k", "pickscore", 0, "1step", "cuda", None, given)
    again = resolve("sd15", "draft_k", "pickscore", 0, "1step", "cuda", None, config.overrides())
    assert again == config


def test_only_the_target_stays_on_the_device(weights):
    suite = suites.find("sd15", weights=str(weights)).load()
    moved = {}
    for name in ("pickscore", "aesthetic"):
        suite.reward(name)
        suite._rewards[name].to = lambda device, name=name: moved.update({name: str(device)}) or suite._rewards[name]
    suite.park("2*pickscore")
    assert moved == {"aesthetic": "cpu"}


def test_mini_has_no_model_to_choose():
    done = CliRunner().invoke(main, ["--model", "somewhere"])
    assert done.exit_code == 2
    assert "unknown setting of shortft 'model'" in done.output


def test_mini_is_single_precision():
    done = CliRunner().invoke(main, ["--set", "precision=bfloat16"])
    assert done.exit_code == 2
    assert "suite mini runs in float32" in done.output


def test_the_suites_settings_are_the_papers_unless_set(weights):
    config = resolve("sd15", "shortft", "pickscore", 0, None, "cuda", None, [f"weights={weights}"])
    assert (config.settings.rank, config.settings.precision) == (128, "bfloat16")
    assert training_timesteps(config.build_suite(), config)[:2] == [981, 961]
    assert configure(weights).settings.precision == "float32"


def test_prompts_are_held_out_from_training(weights):
    for options in ({"prompt_set": "hpdv2"}, {"prompt_set": "animals"}):
        suite = suites.find("sd15", weights=str(weights), **options)
        parts = {name: suite.prompts(name, 256) for name in ("train", "validation", "test", "combinations")}
        assert len(parts["test"]) == 256
        sets = [set(part) for part in parts.values()]
        assert sum(map(len, sets)) == len(set.union(*sets))
        assert parts == {name: suite.prompts(name, 256) for name in parts}
    assert len(prompts.ANIMALS) == len(parts["train"]) == 45
    assert parts["combinations"][0] == "a cat riding a bike"


def test_the_fingerprint_knows_the_weights(weights, tmp_path):
    copy = tmp_path / "weights"
    shutil.copytree(weights, copy)
    same, other = (suites.find("sd15", weights=str(folder)) for folder in (weights, copy))
    assert same.fingerprint(True) == other.fingerprint(True) != other.fingerprint(False)
    path = copy / "stable-diffusion-v1-5/unet/diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert same.fingerprint(True) != suites.find("sd15", weights=str(copy)).fingerprint(True)


def test_the_probes_run_on_it_and_tables_refuse_them_too(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(StableDiffusion15, "chunk", 64)
    given = ["--suite", "sd15", "--out", str(tmp_path), *(f"--set={text}" for text in (*SMALL, f"weights={weights}"))]
    done = CliRunner().invoke(fidelity.main, [*given, "--prompts", "8"])
    assert done.exit_code == 0, done.output
    monkeypatch.setattr(StableDiffusion15, "steps", 8)
    given += ["--methods=draft_k", "--reference=draft_k", "--reward=symmetry", "--batches=3", "--redraws=0", "--at=1"]
    done = CliRunner().invoke(gradients.main, given)
    assert done.exit_code == 0, done.output
    profile = Profile.read(ROOT / "profiles/sd15.yaml")
    profile = profile.model_copy(update={"gradients": profile.gradients.model_copy(update={"reward": "symmetry"})})
    results = Results.read(tmp_path, profile, "sd15")
    assert (tmp_path / "sd15/gradients/symmetry.csv").exists()
    assert (tmp_path / "sd15/fidelity/jumps-leading.csv").exists()
    assert results.gradients is results.jumps() is results.images() is None
