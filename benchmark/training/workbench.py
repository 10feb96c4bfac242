"""A configuration put together: suite, method, executor, trainer. Whoever needs them asks here, and nowhere else."""

import dataclasses
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator

from ..config import RunConfig, read_prompts
from ..diffusion import Executor, Policy
from ..suites import Suite
from .trainer import Trainer


@dataclasses.dataclass(eq=False)
class Workbench:
    """What a configuration needs to take steps and to make images. The trainer is made when it is asked for."""

    config: RunConfig
    suite: Suite | None = None  # loaded; by default the configuration's. Its denoiser is given the LoRA slots in place
    slots: int | None = None  # how many; by default as many as the method has
    shortcut: bool | None = None  # whether the few-step model is at hand; by default where the method needs it
    accelerator: Accelerator | None = None  # where several processes train; by default made for one

    def __post_init__(self):
        config, settings, method = self.config, self.config.settings, self.config.build_method()
        self.method, self.accelerator = method, self.accelerator or Accelerator(cpu=config.device == "cpu")
        # With several processes the accelerator decides which device is this one's.
        device = str(self.accelerator.device) if self.accelerator.num_processes > 1 else None
        suite = self.suite = self.suite or config.load_suite(device)
        pipeline, slots = suite.pipeline, method.slots if self.slots is None else self.slots
        wanted = method.needs_shortcut if self.shortcut is None else self.shortcut
        few_step = suite.shortcut if wanted else None  # first: a copy of the denoiser as it is
        options = {"rank": settings.rank, "seed": config.seed, "lora": suite.lora}
        self.policy = Policy(pipeline.unet, few_step, slots, **options)
        if settings.compile:
            self.policy.compile()
        scales = (settings.guidance_scale or suite.guidance_scale, suite.shortcut_guidance_scale)
        where = (pipeline.vae, pipeline.scheduler, suite.embed([""]))
        self.executor = Executor(self.policy, *where, *scales, suite.steps, settings.spacing)

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
