"""Figures are made from what they show."""

from matplotlib.patches import Arc

from paper_figures import chains


def test_a_chain_is_drawn_hop_by_hop():
    plans = dict(chains.rows())
    assert {"draft", "draft_k", "refl", "shortft 1", "shortft 4"} <= set(plans)
    assert "ddpo" not in plans  # a policy gradient has no differentiable chain
    for name, jumps in (("shortft 1", 3), ("shortft 2", 2), ("shortft 3", 1), ("shortft 4", 0), ("draft", 0)):
        arcs = [p for p in chains.draw([(name, plans[name])]).axes[0].patches if isinstance(p, Arc)]
        assert len(arcs) == len(plans[name])
        orange = [arc for arc in arcs if arc.get_edgecolor()[0] > 0.8 and arc.get_edgecolor()[2] < 0.1]
        assert len(orange) == jumps
