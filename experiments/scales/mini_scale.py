"""Mini scale, the default: what `mini.py` says about data and models, with seeds and budget for two CPU cores."""

from experiments.scale import Scale
from experiments.scales import mini
from lumix.train.config import Run

# Milliseconds of one training step of 32 images on one CPU thread, by architecture (measured once, architecture.md 4).
MILLISECONDS = {"deit": 8.0, "swin": 12.0, "xcit": 18.0, "convnext": 14.0, "resnet50": 11.0}


def hours(run: Run) -> float:
    """Estimated CPU-hours of one seed, to start long runs first: steps times the cost of a step."""
    images = run.epochs * (run.data.train_size or 1500)
    return images / 32 * MILLISECONDS[run.model.role.split("_")[0]] / 3.6e6


DEIT = mini.run("deit_s")
SCALE = Scale(
    name="mini",
    setting=(
        f"{DEIT.data.train_size} training images of scikit-learn's 8x8 digits, nets of every architecture with about 10 to "
        f"100 thousand parameters, {DEIT.epochs} epochs for DeiT-S, one CPU thread: it shows the mechanics, not ImageNet."
    ),
    seeds=3,
    headline_seeds=8,
    run=mini.run,
    patch=lambda role: 2,  # one token of the nets with patch 2, as 16 pixels are at 224
    hours=hours,
    retrain_on_code_change=True,
)
