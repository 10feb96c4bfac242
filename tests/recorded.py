"""Whether today's code still gives the recorded numbers: the smoke profile's cells beside profiles/smoke.csv.

    python -m tests.recorded results            compare, exit 1 where a number moved without a new protocol version
    python -m tests.recorded results --record   record anew, after the version in benchmark/protocol.py was raised

Counts have to be equal. Scores, and how far the images have moved from the base model's, may differ by what another
processor's rounding does in a few steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.records.profile import Profile
from benchmark.records.protocol import PROTOCOL_VERSION
from benchmark.records.results import Results

PROFILES = Path(__file__).parents[1] / "profiles"
KEY = ["variant", "reward", "seed"]
COUNTS = ["protocol", "steps", "images", "operations", "denoiser_forwards", "denoiser_backwards"]
SCORES = ["reward_before", "reward_after", "oracle_after", "diversity_after"]
TOLERANCE = dict.fromkeys(COUNTS, 0.0) | dict.fromkeys(SCORES, 2e-3) | {"drift": 1e-3}


def moved(recorded: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What differs, in words; empty where nothing does."""
    both = recorded.merge(found, on=KEY, how="outer", suffixes=("", "_now"), indicator=True)
    lines = []
    for row in both.to_dict("records"):
        name = f"{row['variant']} on {row['reward']}, seed {row['seed']}"
        if row["_merge"] != "both":
            lines.append(f"{name}: {'not recorded' if row['_merge'] == 'right_only' else 'no result'}")
            continue
        for column, tolerance in TOLERANCE.items():
            was, now = row[column], row[f"{column}_now"]
            if not np.isclose(was, now, rtol=0, atol=tolerance):
                lines.append(f"{name}: {column} was {was:g}, is {now:g}")
    return lines


def main(root: Path, record: bool) -> int:
    found = Results.read(root, Profile.read(PROFILES / "smoke.yaml"), "mini").runs[[*KEY, *TOLERANCE]]
    path = PROFILES / "smoke.csv"
    if record:
        found.sort_values(KEY).to_csv(path, index=False, float_format="%.6g")
        return 0
    recorded = pd.read_csv(path)
    if (recorded.protocol != PROTOCOL_VERSION).any():
        print(f"profiles/smoke.csv is of another protocol than {PROTOCOL_VERSION}; record it anew")
        return 1
    lines = moved(recorded, found)
    print(
        "\n".join([*lines, "raise PROTOCOL_VERSION, or find out why"] if lines else [f"{len(found)} cells as recorded"])
    )
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--record" in sys.argv))
