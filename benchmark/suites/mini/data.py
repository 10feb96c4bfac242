"""Stage ``data``: write splits of the world as datasets, and a picture to look at.

    python -m benchmark.suites.mini.data --split test --count 512

Not needed by the other stages: they draw the same scenes from (split, index) themselves.
"""

from pathlib import Path

import numpy as np
import typer
from PIL import Image

from ...cli import command
from ...errors import unknown
from . import world


@command
def main(
    split: str = typer.Option("test", help=f"One of {', '.join(world.SPLITS)}."),
    count: int = typer.Option(512, min=1, help="Scenes."),
    out: Path = typer.Option(Path("build/mini/data"), help="Folder; the dataset goes to OUT/SPLIT."),
) -> None:
    """Write ``OUT/SPLIT`` (``datasets.load_from_disk`` reads it) and ``OUT/SPLIT.png``, its first scenes."""
    if split not in world.SPLITS:
        raise unknown("split", split, world.SPLITS)
    data = world.dataset(split, count)
    data.save_to_disk(out / split)
    tiles = [np.asarray(row["image"]) for row in data.select(range(min(count, 64)))]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 8)
    rows = [np.concatenate(tiles[i : i + 8], axis=1) for i in range(0, len(tiles), 8)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST).save(out / f"{split}.png")
    print(f"{count} scenes in {out / split}, the first of them in {out / split}.png")


if __name__ == "__main__":
    main()
