"""Sums of rewards by expression, ``10*pickscore + 2*hps``: parsed, never evaluated as code."""

import ast
from collections.abc import Callable

import torch

from .interface import Reward


def _weights(node: ast.expr, text: str) -> dict[str, float]:
    """The expression as a weighted sum of names; the name "" holds a plain number."""
    match node:
        case ast.Name(id=name):
            return {name: 1.0}
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return {"": float(value)}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
            sign = -1.0 if isinstance(op, ast.USub) else 1.0
            return {name: sign * weight for name, weight in _weights(operand, text).items()}
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            total, sign = _weights(left, text), -1.0 if isinstance(op, ast.Sub) else 1.0
            for name, weight in _weights(right, text).items():
                total[name] = total.get(name, 0.0) + sign * weight
            return total
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            a, b = _weights(left, text), _weights(right, text)
            if set(a) != {""}:
                a, b = b, a
            if set(a) == {""}:
                return {name: a[""] * weight for name, weight in b.items()}
    raise ValueError(f"reward {text!r} is not a sum of rewards like '10*pickscore + 2*hps'")


def names_in(text: str) -> dict[str, float]:
    """The rewards named in an expression and their weights; ValueError if it is no weighted sum of names."""
    try:
        weights = _weights(ast.parse(text.strip(), mode="eval").body, text)
    except (SyntaxError, ValueError, RecursionError, OverflowError, MemoryError):
        raise ValueError(f"reward {text[:80]!r} is not a sum of rewards like '10*pickscore + 2*hps'") from None
    if weights.get("", 0.0) or not any(weights.values()):
        raise ValueError(f"reward {text!r} must be a weighted sum of rewards alone, like '10*pickscore + 2*hps'")
    return {name: weight for name, weight in weights.items() if name and weight}


def canonical(weights: dict[str, float]) -> str:
    """One way to write a weighted sum: ``2*hps + 10*pickscore``; a reward alone is its name."""
    if list(weights.values()) == [1.0]:
        return next(iter(weights))
    return " + ".join(f"{weight!r}*{name}".replace(".0*", "*") for name, weight in sorted(weights.items()))


class Sum(Reward):
    """A weighted sum of rewards."""

    def __init__(self, text: str, terms: list[tuple[float, Reward]]):
        self.name = text
        self.version = " + ".join(f"{weight:g}*{reward.name}@{reward.version}" for weight, reward in terms)
        self.scale = "weighted sum"
        self.differentiable = all(reward.differentiable for _, reward in terms)
        self.terms = terms

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return sum(weight * reward(images, prompts) for weight, reward in self.terms)


def combine(text: str, load: Callable[[str], Reward]) -> Reward:
    """The reward of an expression; a plain name gives that reward itself. ``load`` makes a reward from its name."""
    weights = names_in(text)
    if list(weights.values()) == [1.0]:
        return load(next(iter(weights)))
    return Sum(text, [(weight, load(name)) for name, weight in weights.items()])
