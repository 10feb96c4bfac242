"""One cell in its folder: evaluate the base model, train, evaluate the tuned one, write the records."""

import dataclasses
import hashlib
import json
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from .. import records
from ..config import RunConfig
from ..diffusion import Plan, sampler_plan
from .evaluation import VARIED, VARIED_ON_CURVE, Evaluation, evaluate
from .identity import code_fingerprint, identity
from .pictures import before_and_after, thumbnails
from .trainer import LOG_COLUMNS, Diverged
from .workbench import Workbench

STEP = "step {task.fields[step]}  reward {task.fields[reward]}"
BAR = ("{task.description}", BarColumn(), "{task.percentage:>3.0f}%", STEP, TimeElapsedColumn(), TimeRemainingColumn())


@dataclasses.dataclass(eq=False)
class Cell:
    """One run of a configuration. Call it; set ``stop`` to end it after the current step.

    Records go to ``folder`` below ``root``, artifacts beside them (``records.artifacts``). With several processes all
    of them train, and the main one evaluates and writes.
    """

    config: RunConfig
    folder: Path
    root: Path
    console: Console
    track: str | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self):
        config, track = self.config, {"log_with": self.track, "project_dir": self.folder} if self.track else {}
        self.artifacts = records.artifacts(self.root, self.folder)
        self.accelerator = Accelerator(cpu=config.device == "cpu", **track)
        bench = self.bench = Workbench(config, accelerator=self.accelerator)
        self.suite, self.method, self.executor, self.policy = bench.suite, bench.method, bench.executor, bench.policy
        self.trainer = bench.trainer
        if track:
            flat = pd.json_normalize(config.model_dump(mode="json")).iloc[0]
            plain = {k: v if isinstance(v, str | int | float | bool) else str(v) for k, v in flat.items()}
            self.accelerator.init_trackers("benchmark", config=plain)
        self.sampler = self.method.sampler_plan(self.executor.timesteps)
        self.curve: list[dict[str, float]] = []
        self.initial = self.sound = self.policy.state_dict()  # sound: as of the last evaluation with finite scores
        self.stop = False

    # -- evaluation

    def _evaluate(self, plan: Plan, curve: bool = False) -> Evaluation:
        settings, part = self.config.settings, max(self.config.settings.test_prompts // 4, 1)
        held_out = self.suite.prompts(settings.split, settings.test_prompts)
        others = {"combinations": self.suite.prompts("combinations", part), "train": self.trainer.prompts[:part]}
        prompts = {settings.split: held_out[: settings.curve_prompts]} if curve else {settings.split: held_out} | others
        rewards = list(dict.fromkeys([*self.suite.scored_rewards(), self.config.reward]))
        result = evaluate(self.bench, plan, rewards, prompts, VARIED_ON_CURVE if curve else VARIED)
        self.suite.park(self.config.reward)
        return result

    def _add_point(self, point: int, result: Evaluation, before: Evaluation) -> None:
        """A point of the curve, over the prompts that every point has."""
        settings, trainer = self.config.settings, self.trainer
        size = min(settings.curve_prompts, settings.test_prompts), VARIED_ON_CURVE
        result, before = result.first(*size), before.first(*size)
        row = {"share": point / settings.curve_points, "step": trainer.step, "seconds": trainer.seconds}
        row |= {name: getattr(self.executor.ledger, name) for name in ("operations", "images")}
        row |= {column: _finite(float(result.scores[column].mean())) for column in result.scores.columns[2:]}
        row |= {"diversity": _finite(result.diversity), "drift": _finite(result.drift(before))}
        self.curve.append(row | {"evaluation_seconds": result.seconds})
        if self._is_finite(result):
            self.sound = self.policy.state_dict()

    def _is_finite(self, result: Evaluation) -> bool:
        return bool(np.isfinite(result.scores[self.config.reward]).all())

    def _trace(self, before: Evaluation | None) -> None:
        """Evaluate where the curve has its next point; nothing of training depends on it."""
        points = self.config.settings.curve_points
        point = int(self.trainer.progress * points + 1e-9)
        if point < points and (not self.curve or point > round(self.curve[-1]["share"] * points)):
            if self.accelerator.is_main_process:
                self._add_point(point, self._evaluate(self.sampler, curve=True), before)
            self.accelerator.wait_for_everyone()

    def before(self) -> Evaluation:
        """The base model's evaluation: made once per suite and kept beside the runs."""
        settings, suite, reward = self.config.settings, self.suite, self.config.reward
        extra = None if reward in suite.scored_rewards() else [reward, suite.reward(reward).version]
        key = [suite.fingerprint(False), self.executor.guidance_scale, self.executor.timesteps]
        key += [settings.test_prompts, settings.split, settings.train_prompts, identity(self.config)["prompts"], extra]
        key += [code_fingerprint(), torch.__version__, torch.get_num_threads(), self.config.device, settings.precision]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        path = self.root / "artifacts" / self.config.suite / "base" / f"{name}.pt"
        if path.exists():
            return Evaluation.from_state(torch.load(path, weights_only=True))
        result = self._evaluate(sampler_plan(self.executor.timesteps, lambda t: ()))
        records.save_state(path, result.to_state())
        return result

    # -- training

    def _checkpoint(self) -> None:
        if not self.accelerator.is_main_process:
            return
        own = {"curve": self.curve, "sound": self.sound, "identity": identity(self.config)}
        records.save_state(self.artifacts / "checkpoint.pt", self.trainer.state_dict() | own)
        records.write_table(self.folder / "log.csv", pd.DataFrame(self.trainer.log, columns=LOG_COLUMNS), None)

    def train(self, before: Evaluation | None) -> records.Status:
        """Train to the end of the budget; ``before`` is the base model's evaluation, on the main process."""
        trainer = self.trainer
        checkpoint = self.artifacts / "checkpoint.pt"
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            trainer.load_state_dict(state)
            self.curve, self.sound = state["curve"], state["sound"]
            self.console.print(f"resumed at step {trainer.step} ({min(trainer.progress, 1):.0%} of the budget)")
        saved, told, recent = trainer.seconds, trainer.progress, [row[1] for row in trainer.log[-20:]]
        status: records.Status = "done"
        try:
            with Progress(*BAR, console=self.console, disable=not self.console.is_terminal) as bar:
                task = bar.add_task("training", total=1.0, step=trainer.step, reward="")
                for row in trainer.steps():
                    recent = [*recent[-19:], row["reward"]]
                    done, shown = min(row["progress"], 1), f"{np.mean(recent):.4f}"
                    bar.update(task, completed=done, step=row["step"], reward=shown)
                    if not self.console.is_terminal and row["progress"] - told >= 0.1:
                        told = row["progress"]
                        self.console.print(f"{done:4.0%}  step {row['step']}  reward {shown}")
                    self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])
                    self._trace(before)
                    if self.stop:
                        status = "interrupted"
                        break
                    if trainer.seconds - saved >= self.checkpoint_seconds:
                        self._checkpoint()
                        saved = trainer.seconds
        except Diverged as error:
            status = "diverged"
            self.console.print(f"diverged: {error}")
        self._checkpoint()
        return status

    # -- the whole

    def summary(self, status: records.Status, before: Evaluation, after: Evaluation | None) -> records.Summary:
        held_out = self.config.settings.split

        def pair(column: str, split: str = held_out) -> tuple[float, float | None]:
            return before.mean(column, split), after and _finite(after.mean(column, split))

        def error(column: str) -> float | None:
            """Standard error of the paired difference over prompts."""
            if after is None:
                return None
            rows = before.scores.split == held_out
            return _finite(float((after.scores.loc[rows, column] - before.scores.loc[rows, column]).sem()))

        reward, trainer = self.config.reward, self.trainer
        seen = [name for name in (reward, "oracle") if name in before.scores]
        others = before.scores.columns[2:].difference([*seen, *self.suite.reward_weights(reward)], sort=False)
        pairs, errors = {name: pair(name) for name in seen}, {name: error(name) for name in seen}
        oracle = pairs.get("oracle", (None, None))
        return records.Summary(
            **self.config.model_dump(include={"suite", "method", "reward", "seed", "budget"}),
            **dataclasses.asdict(self.executor.ledger),
            status=status,
            steps=trainer.step,
            seconds=trainer.seconds,
            evaluation_seconds=after.seconds if after else 0.0,
            **dict(zip(("reward_before", "reward_after"), pairs[reward], strict=True), reward_se=errors[reward]),
            **dict(zip(("oracle_before", "oracle_after"), oracle, strict=True), oracle_se=errors.get("oracle")),
            diversity_before=before.diversity,
            diversity_after=after and _finite(after.diversity),
            drift=after and _finite(after.drift(before)),
            peak_memory_mb=records.peak_memory_mb(self.config.device),
            random_weights=self.suite.random_weights,
            prior_seconds=self.suite.prior_seconds(self.method.needs_shortcut, reward),
            heldout={name: pair(name) for name in others},
            combinations={name: pair(name, "combinations") for name in seen},
            training={name: pair(name, "train") for name in seen},
        )

    def write(self, summary: records.Summary) -> None:
        records.write_text(self.folder / "summary.json", summary.model_dump_json(indent=2) + "\n")

    def __call__(self) -> records.Summary | None:
        """Run or resume the cell; its summary on the main process, None on others."""
        main, before = self.accelerator.is_main_process, None
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            records.remove_parts(self.folder, self.artifacts)
            (self.artifacts / "error.txt").unlink(missing_ok=True)
            records.write_json(self.folder / "run.json", identity(self.config))
            records.write_json(self.folder / "environment.json", records.environment(self.config.device))
        try:
            if main:
                self.console.print("evaluating the base model")
                before = self.before()
            self.accelerator.wait_for_everyone()
            if main and not self.curve:
                self._add_point(0, before, before)
            status = self.train(before)
            if not main:
                return None
            after = None
            if status != "interrupted":
                status, after = self.finish(status, before)
        except BaseException as error:
            if main:
                records.write_text(self.artifacts / "error.txt", traceback.format_exc())
                if before:
                    status = "failed" if isinstance(error, Exception) else "interrupted"
                    self.write(self.summary(status, before, None))
            raise
        summary = self.summary(status, before, after)
        self.write(summary)
        if after:
            (self.artifacts / "checkpoint.pt").unlink(missing_ok=True)
            self.accelerator.end_training()
        return summary

    def finish(self, status: records.Status, before: Evaluation) -> tuple[records.Status, Evaluation]:
        """Evaluate the tuned model; write its LoRA, scores and picture.

        One whose scores are not finite has diverged, and counts as it was at its last evaluation that had finite ones.
        """
        self.console.print("evaluating the tuned model")
        after = self._evaluate(self.sampler)
        for earlier in (self.sound, self.initial):  # sound on a curve's few prompts may not be so on all
            if self._is_finite(after):
                break
            self.console.print("diverged: its scores are not finite; it counts as it was at an earlier evaluation")
            status = "diverged"
            self.policy.load_state_dict(earlier)
            after = self._evaluate(self.sampler)
        self.policy.save_lora(self.artifacts / "lora")
        if len(self.policy.slots) > 1:
            active = {str(t): self.method.slots_at(t, self.executor.timesteps) for t in self.executor.timesteps}
            records.write_json(self.artifacts / "lora" / records.SLOTS_FILE, active)
        self._add_point(self.config.settings.curve_points, after, before)
        records.write_table(self.folder / "curve.csv", pd.DataFrame(self.curve))
        scores = pd.concat([before.scores.assign(when="before"), after.scores.assign(when="after")])
        records.write_table(self.folder / "scores.csv", scores)
        before_and_after(self.artifacts / "before_after.png", self.bench, before, after)
        thumbnails(self.folder / "samples.jpg", self.executor, before, after)
        return status, after


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
