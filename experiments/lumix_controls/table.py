"""Our controls on DeiT-S: is it the noise in the label that helps, and does it matter how the open points are read?"""

from dataclasses import replace
from functools import partial

from experiments.methods import components, constant_control, lumix, same, smoothed
from experiments.scale import Scale
from experiments.table import TOP1, Method, Row, Table, top1_table
from lumix import BetaLaw

# id, label, method, note
ROWS: tuple[tuple[str, str, Method, str], ...] = (
    ("none", "baseline: Mixup and CutMix", same, ""),
    ("lumix", "LUMix: λr ~ Beta(2, 2), eta 1", lumix, ""),
    ("constant", "λr = 1/2", constant_control, "the expected gradient of LUMix without its noise"),
    ("beta_0.8", "λr ~ Beta(0.8, 0.8)", partial(lumix, law=BetaLaw(alpha=0.8)), "I-9"),
    ("lam_s_r", "λs alone, weight 0.5, with R", partial(components, r_r=0.0, r_s=0.5, eta=1.0), ""),
    ("lam_s", "λs alone, weight 0.5", partial(components, r_r=0.0, r_s=0.5), "Table 2"),
    ("both", "on Mixup batches too", partial(lumix, apply_to="both"), "I-13"),
    (
        "lumix_unsmoothed",
        "LUMix without label smoothing",
        lambda run: lumix(smoothed(run, 0.0)),
        "beside 0.1 of all rows",
    ),
    ("eta_0", "eta 0", partial(lumix, eta=0.0), "I-6; Table 2"),
    ("eta_0.1", "eta 0.1", partial(lumix, eta=0.1), "I-6"),
    ("eta_0.5", "eta 0.5", partial(lumix, eta=0.5), "I-6"),
    ("eta_2", "eta 2", partial(lumix, eta=2.0), "I-6"),
    ("double_softmax", "λs from a double softmax", partial(lumix, scores="double_softmax"), "I-4"),
    ("attached", "gradient through λs", partial(lumix, detach=False), "I-12"),
    ("and", "equation 8 read as AND", partial(lumix, reading="and"), "I-5"),
)
NO_PATH = "there is no input path of our own beside timm's: not run"
HEADLINE = tuple((row, TOP1.id) for row in ("none", "lumix", "constant", "lumix_unsmoothed"))  # primary claims


def build(scale: Scale) -> Table:
    rows = [(id, (change,), method, note, True) for id, change, method, note in ROWS]
    table = top1_table(scale, "Controls of ours, DeiT-S", None, {"change": "Change"}, rows)
    reason = scale.setting("deit").unavailable.get("fast_input", NO_PATH)
    lacking = Row("fast_input", {"change": "LUMix on a fast input path"}, {}, ours=True, unavailable=reason)
    return replace(table, rows=(*table.rows, lacking), headline=HEADLINE)
