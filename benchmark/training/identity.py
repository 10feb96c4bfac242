"""What a record belongs to: configuration, method, weights, training prompts where given, and code."""

import hashlib
from pathlib import Path

import methods

from .. import records
from ..config import RunConfig
from ..records.protocol import PROTOCOL_VERSION

ROOT = Path(__file__).parents[1]
SHARED = ("config.py", "training/*.py", "diffusion/*.py", "rewards/**/*.py", "suites/**/*.py")


def digest(*paths: Path) -> str:
    """A hash of the files' content, in this order."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def code_fingerprint() -> str:
    """A hash of the code that every method's numbers come from."""
    return digest(*(path for pattern in SHARED for path in sorted(ROOT.glob(pattern))))


def identity(config: RunConfig) -> dict:
    """What a folder's records belong to. ``method``: the code of every class that the method inherits from.

    Finished records stay valid when only the shared ``code`` changes: what changes numbers gets a new ``protocol``,
    and a test reproduces a recorded cell. An unfinished run is resumed by the very code that began it.
    """
    return {
        "config": config.model_dump(mode="json"),
        "protocol": PROTOCOL_VERSION,
        "method": digest(*methods.sources(config.method)),
        "weights": config.build_suite().fingerprint(config.build_method().needs_shortcut),
        "prompts": digest(*([Path(config.prompts)] if config.prompts else [])),
        "code": code_fingerprint(),
    }


def changed(there: dict, now: dict) -> list[str]:
    """The parts in which a finished record is not of today's identity."""
    return [part for part in now if part != "code" and there.get(part) != now[part]]


def finished(folder: Path, config: RunConfig) -> records.Summary | None:
    """The summary of a finished run of this configuration, or None."""
    summary, there = records.read_summary(folder), records.read_json(folder / "run.json") or {}
    if summary is None or summary.status not in ("done", "diverged") or changed(there, identity(config)):
        return None
    tables = () if summary.reward_after is None else ("scores.csv", "curve.csv")
    return summary if all((folder / name).is_file() for name in tables) else None
