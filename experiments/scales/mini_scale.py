"""Mini scale, the default: what `mini.py` says about data and models, with seeds and budget for two CPU cores."""

from experiments.scale import Scale
from experiments.scales import mini
from lumix.train.config import Run

# CPU milliseconds for one training image under LUMix, one thread, measured once: long runs are started first.
MILLISECONDS = {
    "deit_s": 0.28,
    "deit_b": 0.34,
    "swin_t": 0.28,
    "swin_s": 0.39,
    "swin_b": 0.41,
    "convnext_t": 0.34,
    "convnext_s": 0.34,
    "convnext_b": 0.47,
    "xcit_s": 0.32,
    "xcit_m": 0.34,
    "xcit_l": 0.45,
    "resnet50": 0.36,
}


def hours(run: Run) -> float:
    """Estimated CPU-hours of one seed."""
    return run.epochs * run.data.train_size * MILLISECONDS[run.model.role] / 3.6e6


SCALE = Scale(
    name="mini",
    setting=(
        f"{mini.TRAIN_SIZE} training images of scikit-learn's 8x8 digits, a tiny net of its own architecture for every "
        "role, one CPU thread: this exercises the mechanics and says nothing about ImageNet."
    ),
    seeds=3,
    headline_seeds=8,
    run=mini.run,
    patch=lambda role: 2,  # one token of the nets with patch 2, as 16 pixels are at 224
    hours=hours,
    retrain_on_code_change=True,
)
