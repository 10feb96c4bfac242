"""Stage ``shortcut``: distil the guided base chain into a few-step model, a LoRA in diffusers' format.

    python -m benchmark.suites.mini.shortcut

Trajectory-segmented consistency (Ren et al., Hyper-SD, NeurIPS 2024), with no reward stage: the chain is cut into four
segments, and from every timestep of a segment the student jumps to the segment's end in one call. The target is the
exact end that the guided 50-step base chain reaches from there (stored trajectories), not the student's own estimate,
so no consistency bootstrapping is needed. Starts from which the benchmark jumps are drawn more often, and a quarter of
the starts is where the student's own jumps lead, the target still being the chain's. In phases (``PHASES``): fidelity
first, then the student's own path, then fidelity twice more; the result is the mean of the weights after two of them.
Run again after an interruption, the stage goes on after its last whole phase (``build/``).

The student keeps classifier-free guidance, as Hyper-SD's CFG-LoRA does, at a scale of its own: 3, where the chain has
7.5. A student without it has to make the guided prediction, 7.5 times a difference of two predictions, in one call; at
7.5 its errors are multiplied as much. What was tried is in the README.
"""

import copy
import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from rich.progress import track
from safetensors.torch import load_file, save_file

from ...cli import command
from ...diffusion import END, Executor, Hop, Policy, sampler_plan
from . import card, oracle, world
from .training import Batch, Device, Guidance, Seed, Training

_TARGETS = """to_q to_k to_v to_out.0 proj_in proj_out ff.net.0.proj ff.net.2
conv conv1 conv2 conv_in conv_out conv_shortcut time_emb_proj linear_1 linear_2"""
TARGETS = tuple(_TARGETS.split())  # every layer
SEGMENT_ENDS = (741, 501, 261, END)
JUMPS = ((741, 501), (481, 261), (241, 1))  # what ShortFT asks of the few-step model
SAMPLER = ((981, 741), (741, 501), (501, 261), (261, END))  # images in four calls
OWN_SHARE = 0.25  # of the batch that starts on the student's own path
BUILD = Path("build/mini")
ROLLOUTS, REFRESH = 512, 250  # how many such paths, and after how many optimiser steps they are made anew


@dataclasses.dataclass(frozen=True)
class Phase:
    """One cycle of the learning rate.

    prompts     which training prompts, one trajectory each
    odds        how often a start on the chain is drawn, by timestep; 1 for those not named
    own_weight  weight of the loss from the student's own path
    share       how far the weights are moved from where the phase began to where it ended: between two fine-tuned
                models lies one that has most of both (Wortsman et al., CVPR 2022)
    """

    iterations: int
    rate: float
    prompts: tuple[int, int]
    odds: dict[int, float]
    own_weight: float
    share: float = 1.0


# 481 is where a naive jump is best, so that the shortcut's lead is least.
PHASES = (
    Phase(6000, 1.2e-3, (0, 24576), {981: 60, 741: 60, 501: 60, 481: 120, 261: 60, 241: 60}, 0.2),
    Phase(5000, 8.0e-4, (24576, 36864), {981: 120, 741: 60, 501: 20, 481: 240, 261: 20, 241: 60}, 1.0, share=0.5),
    Phase(2500, 6.0e-4, (24576, 36864), {981: 40, 741: 60, 501: 10, 481: 480, 261: 10, 241: 120}, 0.1, share=0.5),
    Phase(2000, 6.0e-4, (36864, 45056), {981: 40, 741: 60, 501: 10, 481: 480, 261: 10, 241: 120}, 0.3, share=0.7),
)
MEAN_OF = (2, 4)  # phases, from 1: the best of the own path and the best of fidelity


@torch.no_grad()
def embed(pipeline: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
    """Prompt embeddings (B, L, D)."""
    tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    parts = tokens.to(pipeline.device).split(512)
    return torch.cat([pipeline.text_encoder(part).last_hidden_state for part in parts])


def frozen_executor(
    pipeline: StableDiffusionPipeline, shortcut: UNet2DConditionModel | None, guidance: float, few_step: float | None
) -> Executor:
    """The base model and, beside it, a shortcut with its own guidance ``few_step``; no LoRA slots, nothing to train.

    What makes and measures the weights samples with it. A run's executor is the workbench's: its slots and settings are
    a configuration's, and a suite knows of none.
    """
    policy = Policy(pipeline.unet, shortcut, slots=0)
    return Executor(policy, pipeline.vae, pipeline.scheduler, embed(pipeline, [""]), guidance, few_step)


@torch.no_grad()
def trajectories(executor: Executor, embeds: torch.Tensor, generator: torch.Generator, batch: int = 256):
    """The base chain's latents at every timestep and at the end, (N, 51, C, h, w), on the CPU."""
    plan, parts = sampler_plan(executor.timesteps, lambda t: ()), []
    for part in track(embeds.split(batch), description="trajectories"):
        states = [torch.randn((len(part), 4, 8, 8), generator=generator).to(part.device)]
        for hop in plan:
            states.append(executor.run((hop,), states[-1], part))
        parts.append(torch.stack(states, 1).cpu())
    return torch.cat(parts)


def stored_trajectories(executor: Executor, embeds: torch.Tensor, seed: int) -> tuple[torch.Tensor, float]:
    """Trajectories and the seconds they took, kept in ``build/`` while the base model is the same.

    A stored set serves every shorter one: trajectory ``n`` depends on its prompt, the seed and ``n`` alone.
    """
    weights = (card.PIPELINE / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    settings = f"{seed} {executor.guidance_scale}".encode() + embeds[0].cpu().numpy().tobytes()
    key = hashlib.sha256(weights + settings).hexdigest()[:12]
    counts = sorted(int(path.stem.rpartition("-")[2]) for path in BUILD.glob(f"trajectories-{key}-*.safetensors"))
    count = next((c for c in counts if c >= len(embeds)), len(embeds))
    path = BUILD / f"trajectories-{key}-{count}.safetensors"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        clock = card.Stopwatch()
        states = trajectories(executor, embeds, torch.Generator().manual_seed(seed))
        save_file({"states": states, "seconds": torch.tensor(clock())}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    content = load_file(path)
    return content["states"][: len(embeds)], float(content["seconds"]) * len(embeds) / count


@torch.no_grad()
def rollouts(student: Executor, noise: torch.Tensor, embeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the student's own jumps lead: the starts of its 2nd, 3rd and 4th call, (3, N, C, h, w) on the CPU, after
    their indices (3,) on the base grid."""
    x, states = noise.to(embeds.device), []
    for t, s in SAMPLER[:-1]:
        parts = zip(x.split(128), embeds.split(128), strict=True)
        x = torch.cat([student.run((Hop(t, s, slots=(1,)),), *part) for part in parts])
        states.append(x.cpu())
    return torch.tensor([student.timesteps.index(s) for _, s in SAMPLER[:-1]]), torch.stack(states)


def relative_error(jumped: torch.Tensor, chain: torch.Tensor) -> float:
    """Root mean square of the difference over that of the chain's own latents."""
    return float(((jumped - chain).square().mean() / chain.square().mean()).sqrt())


@torch.no_grad()
def report(executor: Executor, prompts: list[str], embeds: torch.Tensor, seed: int = 1) -> dict[str, float]:
    """The bars of the shortcut on held-out prompts, beside those of naive DDIM jumps.

    Relative errors of one jump and of four against the base chain's latents, then the oracle's scores of the images of
    the 50-step chain and of the four jumps.
    """
    states = trajectories(executor, embeds, torch.Generator().manual_seed(seed))
    at = {t: i for i, t in enumerate([*executor.timesteps, END])}
    errors, ends = {}, {"chain": states[:, -1].to(embeds.device)}
    for model, label in (("shortcut", "shortcut"), ("base", "naive")):
        for t, s in JUMPS:
            jumped = executor.run((Hop(t, s, model),), states[:, at[t]].to(embeds.device), embeds).cpu()
            errors[f"{label}_{t}_{s}"] = relative_error(jumped, states[:, at[s]])
        plan = tuple(Hop(t, s, model) for t, s in SAMPLER)
        ends[label] = executor.run(plan, states[:, 0].to(embeds.device), embeds)
        errors[f"{label}_four_calls"] = relative_error(ends[label].cpu(), states[:, -1])
    images = {label: executor.decode(x).permute(0, 2, 3, 1).cpu().numpy() for label, x in ends.items()}
    return errors | {f"oracle_{label}": float(oracle.score(x, prompts).mean()) for label, x in images.items()}


def train(student: Executor, states: torch.Tensor, embeds: torch.Tensor, phase: Phase, batch: int, seed: int) -> float:
    """Train slot 1 of the student's policy on stored trajectories (N, 51, C, h, w); the mean of the last losses."""
    policy, generator, device = student.policy, torch.Generator().manual_seed(seed), embeds.device
    times = [*student.timesteps, END]
    ends = [next(end for end in SEGMENT_ENDS if end < t) for t in student.timesteps]
    # The last segment's target is the image, though ShortFT jumps to t=1 only: the same noise prediction serves both.
    end_index = torch.tensor([times.index(end) for end in ends])
    hops = [Hop(t, end) for t, end in zip(times[:-1], ends, strict=True)]
    coefficients = torch.tensor([student.move_coefficients(hop)[:2] for hop in hops])
    odds = torch.tensor([phase.odds.get(t, 1.0) for t in student.timesteps])
    timesteps = torch.tensor(student.timesteps)
    own_batch = round(batch * OWN_SHARE)
    weight = torch.ones(batch, device=device)
    weight[:own_batch] = phase.own_weight

    began = [parameter.detach().clone() for parameter in policy.parameters()]
    training = Training(policy.parameters(), phase.rate, phase.iterations, average_decay=0.998)
    for step in track(range(phase.iterations), description="shortcut"):
        if step % REFRESH == 0:
            rolled = torch.randperm(len(states), generator=generator)[:ROLLOUTS]
            own_index, own = rollouts(student, states[rolled, 0], embeds[rolled.to(device)])
        row = torch.randint(len(states), (batch,), generator=generator)
        i = torch.multinomial(odds, batch, replacement=True, generator=generator)
        # A share of the starts is where the student itself would be: it learns to come back to the chain's images.
        place = torch.randint(len(own_index), (own_batch,), generator=generator)
        n = torch.randint(len(rolled), (own_batch,), generator=generator)
        i[:own_batch], row[:own_batch] = own_index[place], rolled[n]
        x, target = states[row, i], states[row, end_index[i]]
        x[:own_batch] = own[place, n]
        a, b = (c.view(-1, 1, 1, 1) for c in coefficients[i].unbind(1))
        wanted = ((target - a * x) / b).to(device)  # the one noise prediction that lands on the target
        call = x.to(device), timesteps[i].to(device), embeds[row.to(device)], policy.weights((1,))
        noise_pred = student.guided("base", *call, student.guidance_scale)
        loss = (F.huber_loss(noise_pred, wanted, reduction="none").mean(dim=(1, 2, 3)) * weight).mean()
        training.step(loss, policy.backward)
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}  loss {training.last_loss():.4f}", flush=True)
    training.use_average()
    with torch.no_grad():
        torch._foreach_lerp_(policy.parameters(), began, 1 - phase.share)
    policy.refresh()
    return training.last_loss()


def train_phases(student: Executor, teacher: Executor, embed_part, rank: int, batch: int, seed: int) -> float:
    """Train the student through ``PHASES``; the seconds this took, trajectories included.

    Ends of phases are kept in ``build/`` under a key of all that led to them, and found there again.
    """
    policy, sets, used, spent, ends = student.policy, sorted({p.prompts for p in PHASES}), set(), 0.0, []
    history = [policy_key(teacher), teacher.guidance_scale, student.guidance_scale, rank, batch, seed]
    for number, phase in enumerate(PHASES):
        history.append(dataclasses.asdict(phase))
        key = hashlib.sha256(json.dumps(history).encode()).hexdigest()[:12]
        path = BUILD / f"shortcut-phase-{number + 1}-{key}.safetensors"
        if path.exists():
            state = load_file(path)
            policy.load_state_dict(state)
        else:
            embeds = embed_part(*phase.prompts)
            states, seconds = stored_trajectories(teacher, embeds, seed + sets.index(phase.prompts))
            print(f"phase {number + 1}: {len(states)} trajectories in {seconds:.0f} s", flush=True)
            start = time.perf_counter()
            loss = train(student, states, embeds, phase, batch, seed + number)
            seconds = time.perf_counter() - start + (0.0 if phase.prompts in used else seconds)
            state = policy.state_dict() | {"loss": torch.tensor(loss), "seconds": torch.tensor(seconds)}
            save_file(state, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        used.add(phase.prompts)
        spent += float(state["seconds"])
        ends.append([parameter.detach().clone() for parameter in policy.parameters()])
    with torch.no_grad():
        for parameter, *values in zip(policy.parameters(), *(ends[number - 1] for number in MEAN_OF), strict=True):
            parameter.copy_(torch.stack(values).mean(0))
    policy.refresh()
    return spent


def policy_key(executor: Executor) -> str:
    """A hash of a policy's base weights."""
    parts = (value.cpu().contiguous().numpy().tobytes() for value in executor.policy.unet.state_dict().values())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@command
def main(
    batch: Batch = 64,
    rank: Annotated[int, typer.Option(help="Of the LoRA.")] = 64,
    guidance: Guidance = 7.5,
    student_guidance: Annotated[float, typer.Option(help="Guidance scale of the student.")] = 3.0,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Distil the shortcut and write it as a LoRA."""
    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline.from_pretrained(card.PIPELINE).to(device)
    pipeline.unet.to(memory_format=torch.channels_last)
    teacher = frozen_executor(pipeline, None, guidance, None)
    policy = Policy(copy.deepcopy(pipeline.unet), slots=1, rank=rank, seed=seed, targets=TARGETS)
    student = Executor(policy, pipeline.vae, pipeline.scheduler, embed(pipeline, [""]), student_guidance)
    captions = world.captions("train", max(phase.prompts[1] for phase in PHASES))
    spent = train_phases(student, teacher, lambda begin, end: embed(pipeline, captions[begin:end]), rank, batch, seed)
    policy.save_lora(card.SHORTCUT)
    shortcut = copy.deepcopy(pipeline.unet)
    merged = {key.replace(".base_layer", ""): value.detach() for key, value in policy.weights((1,)).items()}
    shortcut.load_state_dict(merged, strict=False)
    held_out = world.captions("test", 256)
    executor = frozen_executor(pipeline, shortcut, guidance, student_guidance)
    metrics = report(executor, held_out, embed(pipeline, held_out))
    files, phases = [card.SHORTCUT / "pytorch_lora_weights.safetensors"], [dataclasses.asdict(p) for p in PHASES]
    settings = {"phases": phases, "mean_of": MEAN_OF, "batch": batch, "rank": rank, "guidance": guidance}
    settings |= {"student_guidance": student_guidance, "seed": seed}
    card.write("shortcut", files, spent, device, policy, metrics, **settings)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
