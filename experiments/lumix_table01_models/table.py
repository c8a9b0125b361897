"""LUMix Table 1: ImageNet top-1 of eleven models, trained as usual and with LUMix."""

from pathlib import Path

from experiments.claims import Claim, EachGreater, Greater, WithinPaper
from experiments.methods import lumix, same
from experiments.scale import Scale
from experiments.table import Column, Table, make_row

# role, name, and the paper's own labels: parameters, multiply-adds at 224 pixels, epochs
MODELS = (
    ("convnext_t", "ConvNeXt-T", "29M", "4.5G", "300"),
    ("swin_t", "Swin-T", "28M", "4.5G", "300"),
    ("deit_s", "DeiT-S", "22M", "4.7G", "300"),
    ("xcit_s", "XCiT-S", "26M", "4.8G", "400"),
    ("convnext_s", "ConvNeXt-S", "50M", "8.7G", "300"),
    ("swin_s", "Swin-S", "50M", "8.7G", "300"),
    ("convnext_b", "ConvNeXt-B", "89M", "15.4G", "300"),
    ("swin_b", "Swin-B", "88M", "15.4G", "300"),
    ("xcit_m", "XCiT-M", "84M", "16.2G", "400"),
    ("deit_b", "DeiT-B", "87M", "17.6G", "300"),
    ("xcit_l", "XCiT-L", "189M", "36.1G", "400"),
)
ROLES = tuple(role for role, *_ in MODELS)


def _gain(id: str, role: str, name: str, text: str, cells: str, register: str) -> Claim:
    claim = f"LUMix raises {name} (the text says {text}; Table 1's own cells give {cells})"
    return Claim(id, claim, "abstract, introduction, section 4.1, conclusion; Table 1", (register,), _more(role))


def _more(role: str) -> Greater:
    return Greater(((role, "lumix"),), ((role, "base"),))


def build(scale: Scale) -> Table:
    rows = tuple(
        make_row(
            scale,
            role,
            {"model": name, "parameters": parameters, "flops": flops, "epochs": epochs},
            {"base": same, "lumix": lumix},
            role=role,
        )
        for role, name, parameters, flops, epochs in MODELS
    )
    return Table(
        id="lumix_table01_models",
        title="LUMix on eleven models",
        paper_table="Table 1",
        folder=Path(__file__).parent,
        label_columns=(
            Column("model", "Model"),
            Column("parameters", "#Params (paper)"),
            Column("flops", "FLOPs (paper)"),
            Column("epochs", "Epochs (paper)"),
        ),
        value_columns=(Column("base", "Top-1"), Column("lumix", "+LUMix Top-1")),
        rows=rows,
        claims=CLAIMS,
    )


CLAIMS = (
    Claim(
        "models-every",
        "LUMix raises the top-1 accuracy of every one of the eleven models",
        "section 4.1, Table 1",
        (),
        EachGreater(tuple(((role, "lumix"), (role, "base")) for role in ROLES)),
    ),
    Claim(
        "models-mean",
        "Averaged over the eleven models LUMix gains (Table 1's cells: +0.38, recomputed by us)",
        "Table 1",
        (),
        Greater(tuple((role, "lumix") for role in ROLES), tuple((role, "base") for role in ROLES)),
    ),
    _gain("models-deit_s", "deit_s", "DeiT-S", "+0.7", "+0.8", "I-19"),
    _gain("models-xcit_l", "xcit_l", "XCiT-L", "+0.6", "+0.7", "I-20"),
    Claim(
        "models-deit_s-size",
        "DeiT-S gains 0.8 points, within 0.4 (Table 1; the text says 0.7)",
        "abstract, Table 1",
        ("I-19",),
        WithinPaper(("deit_s", "lumix"), 0.4, to=("deit_s", "base")),
    ),
    Claim(
        "models-xcit_l-size",
        "XCiT-L gains 0.7 points, within 0.4 (Table 1; the text says 0.6)",
        "abstract, Table 1",
        ("I-20",),
        WithinPaper(("xcit_l", "lumix"), 0.4, to=("xcit_l", "base")),
    ),
    Claim(
        "models-deit_s-baseline",
        "DeiT-S without LUMix reaches 79.8, within 0.4 (Table 7 prints 79.9 for the same model)",
        "Tables 1 and 7",
        ("I-22",),
        WithinPaper(("deit_s", "base"), 0.4),
    ),
    Claim(
        "models-deit_s-full",
        "DeiT-S with LUMix reaches 80.6, within 0.4 (Tables 2 and 7 print 80.5 for the same model)",
        "Tables 1, 2, 6, 7, 9 to 12",
        ("I-21",),
        WithinPaper(("deit_s", "lumix"), 0.4),
    ),
)
