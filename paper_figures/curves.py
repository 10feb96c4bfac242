"""The target reward along a run's budget, panel by panel: shared by the figures against compute and seconds."""

from collections.abc import Callable, Collection

import pandas as pd
from matplotlib.figure import Figure

from benchmark.records.results import Results
from benchmark.statistics import crossed_interval

from . import style

Cost = Callable[[str, pd.DataFrame], pd.Series]  # a method and its evaluations -> what each had cost


def plain_methods(results: Results) -> list[str]:
    """Variants that are a method as it is."""
    return [name for name in results.variants() if name not in results.profile.variants]


def band(curve: pd.DataFrame, reward: str, axis: str = "operations") -> pd.DataFrame:
    """Mean over seeds at every share of the budget that all seeds have, with its 95% t interval where there are two.

    Columns: x (mean of ``axis``), mean, low, high.
    """
    wide = curve.pivot_table(index="share", columns="folder", values=[axis, reward], dropna=False).dropna()
    rows = []
    for share in wide.index:
        values = wide.loc[share, reward].to_numpy()
        mean = float(values.mean())
        low, high = crossed_interval(values[:, None])[1:] if len(values) > 1 else (mean, mean)
        rows.append({"x": wide.loc[share, axis].mean(), "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["x", "mean", "low", "high"])


def draw(results: Results, cost: Cost, title: str, label: str, starred: Collection[str] = ()) -> Figure | None:
    """One panel per reward; ``cost`` gives the x of a method's evaluations. ``starred``: with a * in the legend."""
    rewards, methods = results.rewards(), plain_methods(results)
    curves = {(m, r): curve for r in rewards for m in methods if len(curve := results.curve(m, r))}
    if not curves:
        return None
    figure, axes, spare = style.panels(results, title, len(rewards), 0.9, 1.9)
    for panel, reward in zip(axes, rewards, strict=True):
        counts = []
        for method in reversed(methods):  # the last ones of the profile lie below, ShortFT on top
            if (curve := curves.get((method, reward))) is None:
                continue
            line, look = band(curve.assign(x=cost(method, curve)), reward, "x"), style.of(method)
            counts.append(curve.folder.nunique())
            order = 4 if method == "shortft" else 3
            panel.plot(line.x, line["mean"], label=method, zorder=order, **look.curve() | {"markersize": 3})
            panel.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.13, lw=0, zorder=order - 2)
        if counts:
            panel.set_title(f"{style.short(reward)}, {style.seeds(counts)}")
            panel.set_xlim(left=0)
        else:
            panel.set_title(style.short(reward))
            style.empty(panel)
    figure.supylabel("target reward, the curves' held-out prompts", fontsize=7)
    shown = [method for method in methods if any(method == m for m, _ in curves)]
    looks = {m + " *" * (m in starred): style.of(m).curve() for m in shown}
    style.legend(figure, style.handles(looks), 5, spare, label)
    return figure
