"""A table of ours: LUMix and Decoupled Mixup on one recipe, because both push towards the pair of classes."""

from dataclasses import replace
from functools import partial

from experiments.decoupled import STATIC_ETA, on
from experiments.methods import components, constant_control, lumix, same, smoothed
from experiments.scale import Scale
from experiments.table import TOP1, Method, Table, top1_table

ON_CUTMIX = partial(on, "cutmix", alpha=1.0)  # in every row, so that rows differ in the loss alone
SMOOTHING = (0.1, 0.2, 0.3)
PREDICTED = partial(components, r_r=0.0, r_s=0.1)
# id, labels, loss, method
ROWS: tuple[tuple[str, str, str, Method], ...] = (
    ("cutmix", "area", "MCE", ON_CUTMIX(same)),
    ("cutmix_dm", "area", "DM(CE), eta 0.1", ON_CUTMIX(same, eta=STATIC_ETA)),
    ("cutmix_dm_1", "area", "DM(CE), eta 1", ON_CUTMIX(same, eta=1.0)),
    ("lumix", "LUMix", "MCE", ON_CUTMIX(lumix)),
    ("lumix_dm", "LUMix", "DM(CE), eta 0.1", ON_CUTMIX(lumix, eta=STATIC_ETA)),
    ("lumix_dm_1", "LUMix", "DM(CE), eta 1", ON_CUTMIX(lumix, eta=1.0)),
    ("lam_s", "λs alone, weight 0.1", "MCE", ON_CUTMIX(PREDICTED)),
    ("lam_s_half", "λs alone, weight 0.5", "MCE", ON_CUTMIX(partial(components, r_r=0.0, r_s=0.5))),
    ("constant", "LUMix with λr = 1/2", "MCE", ON_CUTMIX(constant_control)),
    ("regulariser", "area", "MCE and R", ON_CUTMIX(partial(components, r_r=0.0, r_s=0.0, eta=1.0))),
    *(
        (f"smoothing_{value}", f"area, smoothing {value}", "MCE", ON_CUTMIX(partial(smoothed, smoothing=value)))
        for value in SMOOTHING
    ),
)


def build(scale: Scale) -> Table:
    labels = {"labels": "Label weight", "loss": "Loss"}
    rows = [(id, (weight, loss), method, "", True) for id, weight, loss, method in ROWS]
    title = "LUMix and Decoupled Mixup together, ResNet-18 on CutMix"
    table = top1_table(scale, title, None, labels, rows, "cutmix", "resnet18", "cifar100")
    headline = tuple((id, TOP1.id) for id in ("cutmix", "lumix", "constant", "smoothing_0.1"))  # of the primary claims
    text = scale.setting("cifar100").text
    return replace(table, statistic="median_last", setting=text, seeds=scale.more_seeds, headline=headline)
