"""Target reward against seconds, one panel per reward: as ``reward_against_compute``, on the clock of one machine.

Runs share the machine, so their own clocks are not used: seconds are a run's operations times the seconds per operation
of its method's optimiser step, measured alone on the machine (``benchmark.cost``, with one reward for all). For a
method whose steps all cost the same that is seconds per step times steps; ShortFT's later stages cost more than its
first one, which is the one measured, and some methods draw the length of their chain anew at each step. A method that
the cost benchmark lacks is marked with * and drawn by its runs' own seconds.
"""

import pandas as pd
from matplotlib.figure import Figure

from benchmark.records.results import Results

from . import curves

NEEDS = "curve.csv of at least one run of a plain method"


def figure(results: Results) -> Figure | None:
    speeds = {m: results.seconds_per_operation(m) for m in curves.plain_methods(results)}

    def seconds(method: str, curve: pd.DataFrame) -> pd.Series:
        return curve.seconds if speeds[method] is None else curve.operations * speeds[method]

    before = results.runs.few_step_seconds.max() if len(results.runs) else 0
    own = [method for method, speed in speeds.items() if speed is None]
    label = "training seconds: operations times seconds per operation of a step, measured alone on the machine"
    if own:
        label += "\n* the runs' own seconds: no cost benchmark of it"
    if len(own) == len(speeds):
        label, own = "training seconds (the runs' own, beside others on the machine: no cost benchmark)", []
    if before:
        label += f"\nnot counted: making the few-step model that ShortFT needs first, {before:,.0f} seconds"
    return curves.draw(results, seconds, "Reward against seconds", label, own)
