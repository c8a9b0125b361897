"""How every figure looks, and how it is saved. Nothing else in this folder chooses a colour, a size or a font."""

from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent.parent / "report" / "figures"
DPI = 150

# Okabe and Ito's palette: told apart with every common colour blindness, and in grey by line style and marker.
CUTMIX, LUMIX, CONSTANT, PREDICTED, PAPER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"
LAWS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
RIVALS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8B4513", "#000000", "#999933")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def use() -> None:
    """Set the theme for this process; call it first in a notebook."""
    sns.set_theme(context="notebook", style="whitegrid")
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "savefig.dpi": DPI,
            "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same letters
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def say_not_run(axes: Axes, reason: str) -> None:
    """Leave a panel empty but for the words "not run" and why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, f"not run\n{reason}", ha="center", va="center", color=PAPER, transform=axes.transAxes)


def save(figure: Figure, name: str, folder: Path = FOLDER) -> list[Path]:
    """PNG and PDF under `name`, free of dates, so that an unchanged figure is an unchanged file."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    figure.savefig(paths[0], metadata={"Software": None})
    figure.savefig(paths[1], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return paths
