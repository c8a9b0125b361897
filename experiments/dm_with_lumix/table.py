"""A table of ours: LUMix and Decoupled Mixup on one recipe, because both push towards the pair of classes."""

from functools import partial

from experiments.decoupled import STATIC_ETA, on
from experiments.methods import components, constant_control, lumix, same, smoothed
from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Table, make_row

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
CELL = {id: (id, TOP1.id) for id, *_ in ROWS}


def build(scale: Scale) -> Table:
    return Table(
        title="LUMix and Decoupled Mixup together, ResNet-18 on CutMix",
        paper_table=None,
        label_columns=(Column("labels", "Label weight"), Column("loss", "Loss")),
        rows=tuple(
            make_row(
                scale,
                id,
                {"labels": labels, "loss": loss},
                {TOP1.id: method},
                role="resnet18",
                ours=True,
                setting="cifar100",
            )
            for id, labels, loss, method in ROWS
        ),
        baseline=CELL["cutmix"],
        statistic="median_last",
        setting=scale.setting("cifar100").text,
        seeds=scale.more_seeds,
        headline=tuple(CELL[row] for row in ("cutmix", "lumix", "constant", "smoothing_0.1")),  # of the primary claims
    )
