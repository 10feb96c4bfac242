"""Chains as plans of hops, the executor that walks them, and the policy whose LoRA slots are trained."""

from .executor import Executor
from .plan import CLEAN, END, Hop, Plan, describe, sampler_plan
from .policy import Policy

__all__ = ["CLEAN", "END", "Executor", "Hop", "Plan", "Policy", "describe", "sampler_plan"]
