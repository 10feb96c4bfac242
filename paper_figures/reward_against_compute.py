"""Target reward against compute, one panel per reward: who has more reward at the same number of operations?

A line is the mean over seeds on held-out prompts, its band the 95% t interval over seeds (none for one seed).
Operations are counted, every forward and backward call of denoiser, decoder and reward, and so the same on every
machine. Higher at the same x is better; the methods' last points lie at the same budget. Only methods as they are, no
ablations.
"""

from matplotlib.figure import Figure

from benchmark.records.results import Results

from . import curves

NEEDS = "curve.csv of at least one run of a plain method"


def figure(results: Results) -> Figure | None:
    return curves.draw(results, lambda _, curve: curve.operations / 1e12, "Reward against compute", "operations, TFLOP")
