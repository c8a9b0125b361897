"""LUMix Table 2: DeiT-S with the predicted ratio, the random ratio, both, and both with the regulariser R."""

from experiments.methods import components, lumix, same
from experiments.scale import Scale
from experiments.table import Column, Table, top1_row

# id, λs, λr, R, method, note
ROWS = (
    ("none", "", "", "", same, ""),
    ("lam_s", "yes", "", "", lambda run: components(run, r_r=0.0, r_s=0.5), "weight 0.5"),
    ("lam_r", "", "yes", "", lambda run: components(run, r_r=0.5, r_s=0.0), "weight 0.5"),
    ("lam_s_lam_r", "yes", "yes", "", lambda run: components(run, r_r=0.4, r_s=0.1), "weights 0.1 and 0.4"),
    ("full", "yes", "yes", "yes", lumix, "weights 0.1 and 0.4, eta 1"),
)


def build(scale: Scale) -> Table:
    return Table(
        title="Components of LUMix, DeiT-S",
        paper_table="Table 2",
        label_columns=(Column("lam_s", "λs"), Column("lam_r", "λr"), Column("r", "R")),
        rows=tuple(
            top1_row(scale, id, {"lam_s": lam_s, "lam_r": lam_r, "r": r}, method, note=note)
            for id, lam_s, lam_r, r, method, note in ROWS
        ),
        baseline=("none", "top1"),
    )
