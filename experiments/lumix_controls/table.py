"""Our controls on DeiT-S: is it the noise in the label that helps, and does it matter how the open points are read?"""

from functools import partial
from pathlib import Path

from experiments.claims import Claim, Close, EachGreater, Greater
from experiments.methods import components, constant_control, fast_input, lumix, same
from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Row, Table, top1_row
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
    ("eta_0", "eta 0", partial(lumix, eta=0.0), "I-6; Table 2"),
    ("eta_0.1", "eta 0.1", partial(lumix, eta=0.1), "I-6"),
    ("eta_0.5", "eta 0.5", partial(lumix, eta=0.5), "I-6"),
    ("eta_2", "eta 2", partial(lumix, eta=2.0), "I-6"),
    ("double_softmax", "λs from a double softmax", partial(lumix, scores="double_softmax"), "I-4"),
    ("attached", "gradient through λs", partial(lumix, detach=False), "I-12"),
    ("and", "equation 8 read as AND", partial(lumix, reading="and"), "I-5"),
    ("fast_input", "LUMix on the fast input path", lambda run: fast_input(lumix(run)), "docs/performance.md"),
)
NONE, LUMIX, CONSTANT = ((row, "top1") for row in ("none", "lumix", "constant"))


def build(scale: Scale) -> Table:
    return Table(
        id="lumix_controls",
        title="Controls of ours, DeiT-S",
        paper_table=None,
        folder=Path(__file__).parent,
        label_columns=(Column("change", "Change"),),
        value_columns=(TOP1,),
        rows=tuple(_row(scale, *row) for row in ROWS),
        claims=CLAIMS,
        baseline=NONE,
        headline=(NONE, LUMIX, CONSTANT),
    )


def _row(scale: Scale, id: str, change: str, method: Method, note: str) -> Row:
    reason = scale.setting("deit").unavailable.get(id, "")
    if reason:
        return Row(id, {"change": change}, {}, ours=True, unavailable=reason)
    return top1_row(scale, id, {"change": change}, method, ours=True, note=note)


CLAIMS = (
    Claim(
        "controls-lumix",
        "LUMix beats Mixup and CutMix with area labels (the paper: 79.8 to 80.6)",
        "Table 1",
        ("I-19",),
        Greater((LUMIX,), (NONE,)),
    ),
    Claim(
        "controls-noise",
        "A random λr beats its own mean: label noise helps, not only softer labels (the paper's explanation; the "
        "control is ours, and cross entropy is linear in the label, so the expected gradients are equal)",
        "ours",
        (),
        Greater((LUMIX,), (CONSTANT,)),
    ),
    Claim(
        "controls-constant",
        "Without noise, at λr = 1/2, the rest of LUMix still beats the baseline",
        "ours",
        (),
        Greater((CONSTANT,), (NONE,)),
    ),
    Claim(
        "controls-eta",
        "eta, which the paper does not state, does not matter between 0.5 and 2, to 0.4 points",
        "ours",
        ("I-6",),
        Close((("eta_0.5", "top1"), LUMIX, ("eta_2", "top1")), 0.4),
    ),
    Claim(
        "controls-fast-input",
        "The fast input path, which resizes and augments otherwise, costs no accuracy, to 0.4 points",
        "ours",
        (),
        Close((("fast_input", "top1"), LUMIX), 0.4),
    ),
    Claim(
        "controls-readings",
        "LUMix beats the baseline under each reading of its open points: both kinds of batches, double softmax, "
        "gradient through λs, equation 8 as AND",
        "ours",
        ("I-4", "I-5", "I-12", "I-13"),
        EachGreater(tuple(((row, "top1"), NONE) for row in ("both", "double_softmax", "attached", "and"))),
    ),
)
