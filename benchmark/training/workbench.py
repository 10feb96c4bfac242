"""A configuration put together: suite, method, executor, trainer. Whoever needs them asks here, and nowhere else."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from accelerate import Accelerator

from ..config import RunConfig, read_prompts
from ..diffusion import Executor, Policy
from ..suites import Suite
from .trainer import Trainer


class Workbench:
    """What a configuration needs to take steps and to make images. The trainer is made when it is asked for.

    suite        a loaded one takes the place of the configuration's; its denoiser is given the LoRA slots in place
    slots        how many LoRA slots there are; by default as many as the method has
    shortcut     whether the few-step model is at hand; by default where the method needs it
    accelerator  where several processes train; by default made for one
    """

    def __init__(
        self,
        config: RunConfig,
        suite: Suite | None = None,
        slots: int | None = None,
        shortcut: bool | None = None,
        accelerator: Accelerator | None = None,
    ):
        self.config, self.method = config, config.build_method()
        # With several processes the accelerator decides which device is this one's.
        self.accelerator = accelerator or Accelerator(cpu=config.device == "cpu")
        several = self.accelerator.num_processes > 1
        self.suite = suite or config.load_suite(str(self.accelerator.device) if several else None)
        self.executor = self._executor(
            self.method.slots if slots is None else slots, self.method.needs_shortcut if shortcut is None else shortcut
        )
        self.policy = self.executor.policy

    def _executor(self, slots: int, shortcut: bool) -> Executor:
        suite, settings, pipeline = self.suite, self.config.settings, self.suite.pipeline
        few_step = suite.shortcut if shortcut else None  # first: a copy of the denoiser as it is
        policy = Policy(pipeline.unet, few_step, slots, settings.rank, self.config.seed, lora=suite.lora)
        if settings.compile:
            policy.compile()
        scales = (settings.guidance_scale or suite.guidance_scale, suite.shortcut_guidance_scale)
        where = (pipeline.vae, pipeline.scheduler, suite.embed([""]))
        return Executor(policy, *where, *scales, suite.steps, settings.spacing)

    @cached_property
    def prompts(self) -> list[str]:
        """The training prompts. They are embedded all at once: a resumed run finds the numbers of one in one piece."""
        given, settings = self.config.prompts, self.config.settings
        prompts = read_prompts(Path(given)) if given else self.suite.prompts("train", settings.train_prompts)
        self.suite.embed(prompts)
        return prompts

    @cached_property
    def trainer(self) -> Trainer:
        return Trainer(self)
