"""LUMix Table 1: ImageNet top-1 of eleven models, trained as usual and with LUMix."""

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
LABELS = {"model": "Model", "parameters": "#Params (paper)", "flops": "FLOPs (paper)", "epochs": "Epochs (paper)"}


def build(scale: Scale) -> Table:
    return Table(
        title="LUMix on eleven models",
        paper_table="Table 1",
        label_columns=tuple(Column(id, title) for id, title in LABELS.items()),
        value_columns=(Column("base", "Top-1"), Column("lumix", "+LUMix Top-1")),
        rows=tuple(
            make_row(scale, role, dict(zip(LABELS, labels, strict=True)), {"base": same, "lumix": lumix}, role)
            for role, *labels in MODELS
        ),
    )
