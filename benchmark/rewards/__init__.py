"""Rewards: what turns images and prompts into scores, and their sums by expression."""

from .expression import canonical, combine, names_in
from .interface import Reward, RewardError
from .pixels import PIXEL_REWARDS

__all__ = ["PIXEL_REWARDS", "Reward", "RewardError", "canonical", "combine", "names_in"]
