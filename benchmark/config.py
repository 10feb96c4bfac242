"""The configuration of a run: validated settings, budgets, and one line for whatever is wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_serializer

import methods
from methods import Method

from . import suites
from .errors import InputError, one_line, unknown
from .records import run_folder
from .records.profile import Profile, rate_file, read_rates
from .rewards import canonical

UNITS = ("GFLOP", "TFLOP", "PFLOP", "s", "img", "step")


class Budget(BaseModel):
    """How long a run trains: ``5TFLOP``, ``120s``, ``2000img`` or ``100step``."""

    model_config = ConfigDict(frozen=True)
    amount: float
    unit: Literal[UNITS]

    @classmethod
    def parse(cls, text: str) -> Budget:
        match = re.fullmatch(rf"\s*(\d+(?:\.\d*)?|\.\d+)\s*({'|'.join(UNITS)})s?\s*", text, re.IGNORECASE)
        if match is None or float(match[1]) <= 0:
            raise ValueError(f"budget {text!r} is not a positive amount with a unit: 5TFLOP, 120s, 2000img, 40step")
        return cls(amount=float(match[1]), unit=next(unit for unit in UNITS if unit.lower() == match[2].lower()))

    def share_spent(self, operations: int, seconds: float, images: int, steps: int) -> float:
        """The share of the budget that is spent; 1 or more ends the run."""
        flop = {"GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15}
        spent = {"s": seconds, "img": images, "step": steps}.get(self.unit)
        return (operations / flop[self.unit] if spent is None else spent) / self.amount


class _Recorded(BaseModel):
    """Written without the fields named here where they are at their default.

    They were added when runs had been recorded: a run that says nothing of them is the same run as before.
    """

    added: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, handler) -> dict:
        usual = {name: type(self).model_fields[name].default for name in self.added}
        return {name: value for name, value in handler(self).items() if name not in usual or value != usual[name]}


class Settings(_Recorded):
    """What ``--set`` can change of a run besides the method's own options. Same for every method."""

    added: ClassVar = ("micro_batch", "precision", "compile")

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-3, gt=0, description="AdamW's rate, constant; the tables' rows have tuned ones")
    batch: int = Field(8, ge=1, description="prompts per gradient estimate, over all processes")
    rank: int = Field(16, ge=1, description="rank of each LoRA slot")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of a gradient estimate")
    adam_epsilon: float = Field(1e-12, gt=0, description="AdamW's epsilon; small, because gradients of late hops are")
    guidance_scale: float | None = Field(None, gt=0, description="guidance in training and sampling; none: the suite's")
    spacing: Literal["leading", "trailing"] = Field("leading", description="timestep spacing of the base chain")
    train_prompts: int = Field(4096, ge=1, description="how many of the suite's training prompts are used")
    test_prompts: int = Field(256, ge=8, description="held-out prompts of an evaluation")
    split: Literal["test", "validation"] = Field("test", description="their split; tuning looks at validation only")
    curve_points: int = Field(8, ge=1, description="evaluations after the start, at equal shares of the budget")
    curve_prompts: int = Field(64, ge=1, description="held-out prompts of those before the end, the first of them all")
    micro_batch: int | None = Field(None, ge=1, description="prompts at a time, each part like a process of its own")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of denoiser, decoder and reward calls")
    compile: bool = Field(False, description="run the denoiser as torch.compile makes it")


class RunConfig(_Recorded):
    """One cell of the matrix, resolved."""

    model_config = ConfigDict(frozen=True)
    added: ClassVar = ("suite_options",)

    suite: str
    method: str
    reward: str
    seed: int = Field(0, ge=0, lt=2**63)
    budget: Annotated[str, AfterValidator(lambda text: Budget.parse(text) and text)]
    device: str = "cpu"
    prompts: str | None = None
    settings: Settings = Settings()
    options: dict = {}
    suite_options: dict = {}

    def build_method(self) -> Method:
        return methods.find(self.method)(**self.options)

    def build_suite(self) -> suites.Suite:
        return suites.find(self.suite, **self.suite_options)

    def load_suite(self, device: str | None = None) -> suites.Suite:
        """The suite with its base model, on the run's device or another."""
        shortcut = self.build_method().needs_shortcut
        return self.build_suite().load(device or self.device, self.settings.precision, shortcut)

    def overrides(self) -> list[str]:
        """What ``--set`` has to be given to get this configuration: everything that is not a default."""
        usual = methods.find(self.method)().model_dump(mode="json")
        changed = {name: value for name, value in self.options.items() if value != usual[name]}
        standard = dict(Settings(**self.build_suite().defaults(self.device)))
        changed |= {name: value for name, value in dict(self.settings).items() if value != standard[name]}
        changed |= self.suite_options
        return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items()]

    def folder(self, root: Path) -> Path:
        """``root/suite/reward/method/seed-n``, with a hash of all that differs from the suite's standard run."""
        suite = suites.find(self.suite)
        same = self.model_dump(include={"suite", "method", "reward", "seed", "device"})
        options, settings = methods.find(self.method)().model_dump(mode="json"), Settings(**suite.defaults(self.device))
        standard = RunConfig(**same, budget=suite.standard_budget, options=options, settings=settings)
        seed = str(self.seed)
        if self != standard:
            text = json.dumps(self.model_dump(mode="json", exclude={"device"}), sort_keys=True)
            seed += "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        return run_folder(root, self.suite, self.reward, self.method.replace(":", "."), seed)


def _value(text: str):
    """A value from the command line: JSON where it is JSON, else the text itself; ``0.4,0.2`` is a list."""
    try:
        return json.loads(f"[{text}]" if "," in text and not text.startswith("[") else text)
    except ValueError:
        return text


@contextlib.contextmanager
def _first_problem(prefix: str) -> Iterator[None]:
    """The first thing that pydantic finds wrong inside becomes one line."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"] if isinstance(part, str)) or "value"
        message = problem["msg"].removeprefix("Value error, ")
        raise InputError(f"{prefix}{name}: {message}, got {problem['input']!r}") from None


Given = str | None  # what a command line may leave out


def resolve(
    suite: str, method: str, reward: str, seed: int, budget: Given, device: str, prompts: Given, overrides: list[str]
) -> RunConfig:
    """The configuration of a command line; InputError for the first thing that is wrong with it."""
    if suite not in suites.names():
        raise unknown("suite", suite, suites.names())
    if ":" not in method and method not in methods.names():
        method = method.replace("-", "_")
    try:
        with one_line(ImportError, TypeError):
            kind, cls = suites.kind(suite), methods.find(method)
    except KeyError:
        raise unknown("method", method, methods.names()) from None
    places = {"options": cls, "settings": Settings, "suite": kind.Options}
    given: dict[str, dict] = {place: {} for place in places}
    for override in overrides:
        name, equals, value = override.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--set {override!r} is not of the form name=value")
        place = next((place for place, model in places.items() if name in model.model_fields), None)
        if place is None:
            valid = [field for model in places.values() for field in model.model_fields]
            raise unknown(f"setting of {method}", name, valid)
        given[place][name] = _value(value)
    with _first_problem(f"--set, {method}: "):
        built = cls(**given["options"])
    with _first_problem("--set "):
        chosen = kind(**given["suite"])
        settings = Settings(**(chosen.defaults(device) | given["settings"]))
    try:
        with one_line(ValueError):
            weights = chosen.reward_weights(reward)
            reward = reward if reward in chosen.combinations else canonical(weights)
    except KeyError as error:
        raise unknown("reward", error.args[0], [*chosen.reward_names(), *chosen.combinations]) from None
    if built.needs_gradient and not chosen.differentiable(reward):
        raise InputError(f"{method} needs the reward's gradient, and {reward} has none; use ddpo")
    if settings.precision != "float32" and chosen.lora == "merged":
        raise InputError(f"suite {suite} runs in float32: its LoRA is merged into the weights")
    if built.needs_shortcut and not chosen.has_shortcut:
        raise InputError(f"method {method} needs a few-step model, and suite {suite} has none")
    budget = chosen.standard_budget if budget is None else budget
    with one_line(ValueError):
        Budget.parse(budget)
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be 0 or more and below 2**63, got {seed}")
    options = {"options": built.model_dump(mode="json")}
    options |= {"suite_options": chosen.options.model_dump(mode="json", exclude_defaults=True)}
    where = {"suite": suite, "device": device, "prompts": prompts}
    return RunConfig(method=method, reward=reward, seed=seed, budget=budget, settings=settings, **where, **options)


def resolve_cell(
    profile: Profile, suite: str, variant: str, reward: str, seed: int, device: str, out: Path
) -> tuple[RunConfig, Path]:
    """The configuration and folder of a profile's variant, with its tuned learning rate from below ``out``."""
    path = rate_file(out, suite, reward)
    rates = read_rates(path)
    variant = variant.replace("-", "_") if variant.replace("-", "_") in methods.names() else variant
    if variant not in [*profile.variants, *methods.names()]:
        raise unknown("variant", variant, [*profile.methods(), *profile.variants])
    if variant not in rates:
        tune = f"python -m benchmark.tune --reward {reward} --method {variant} --out {out}"
        raise InputError(f"{path} has no rate for {variant}; run {tune}")
    overrides = [*profile.overrides(variant), f"learning_rate={rates[variant]}"]
    config = resolve(suite, profile.method(variant), reward, seed, profile.budget, device, None, overrides)
    return config, run_folder(out, suite, config.reward, variant, seed)


def check_device(device: str) -> None:
    """Refuse a device that PyTorch does not see."""
    match, gpus = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", device), torch.cuda.device_count()
    if not match:
        raise InputError(f"unknown device {device!r}; expected cpu, cuda or cuda:N")
    if match[1] == "cuda" and int(match[2] or 0) >= gpus:
        raise InputError(f"--device {device}: this PyTorch sees {gpus} CUDA GPUs; use --device cpu")


def split_variant(text: str) -> tuple[str, list[str]]:
    """Method and ``name=value`` options of a variant: a method, or one with options (``shortft shortcut=naive``)."""
    words = text.split()
    if not words:
        raise InputError("a method's name is empty; expected a method, or one with options: 'shortft shortcut=naive'")
    return words[0], words[1:]


def read_prompts(path: Path) -> list[str]:
    """Prompts from a UTF-8 text file, one per line; empty lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"prompt file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"prompt file {path} is not UTF-8 (byte {error.start}); save it as UTF-8 text") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise InputError(f"prompt file {path} is empty; expected one prompt per line")
    return prompts
