"""The runs of scale small's first protocol: they stay in the record, and are not pooled with those of the second.

Nothing more is trained of it. docs/small-scale.md says what was asked, and what was found of it.
"""

from dataclasses import replace

from experiments.scale import Setting
from experiments.scales import small
from training.config import Run


def run(role: str) -> Run:
    """The base run of a role, whose biases and norms did not decay."""
    later = small.run(role)
    return later.replace(optim=later.optim.replace(decayed="weights"))


TEXT = f"{small.TEXT} These runs are of an earlier protocol, whose place before its results the history cannot show."
OTHER_SHARE = "takes two to three times as long as 15 %, and the question is asked there"
SCALE = replace(
    small.SCALE,
    name="small_earlier",
    text=TEXT,
    settings={"cifar100": Setting(run, TEXT, unavailable={"30": OTHER_SHARE, "50": OTHER_SHARE})},
    tables=("dm_table08_limited_labels", "dm_with_lumix"),
    headline_seeds=8,
    blocks=False,
)
