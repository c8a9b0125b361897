"""The methods and losses of Decoupled Mixup (DM) as functions from a plain base run to a run (its appendix B)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.methods import manifold, puzzle, same
from experiments.scale import Scale, Setting
from experiments.table import Column, Method, Row, Table
from lumix import Decoupled, Mixer, RescaledBinaryCrossEntropy
from lumix.registry import get_part
from training.config import Mix, Run

# Beta's alpha beside the mixed cross entropy, as the toolbox that the paper follows has it, by setting; beside DM's
# losses it is 0.2 for static and 2 for dynamic methods (D-10).
METHODS = ("mixup", "cutmix", "manifoldmix", "saliencymix", "puzzlemix")
_ALPHAS = {
    "cifar100": (1.0, 0.2, 2.0, 0.2, 1.0),
    "tiny_imagenet": (1.0, 1.0, 0.2, 1.0, 1.0),
    "pytorch": (0.2, 1.0, 0.2, 1.0, 1.0),
    "rsb_a3": (0.2, 0.2, 0.2, 0.2, 1.0),
    "cub200": (0.2, 1.0, 0.5, 0.2, 1.0),
}
ALPHA = {setting: dict(zip(METHODS, alphas, strict=True)) for setting, alphas in _ALPHAS.items()}
ALPHA |= {"cifar100_half": ALPHA["cifar100"], "deit": ALPHA["rsb_a3"], "aircraft": ALPHA["cub200"]}
STATIC_ALPHA, DYNAMIC_ALPHA = 0.2, 2.0
STATIC_ETA, DYNAMIC_ETA = 0.1, 1.0
LEARNING = ("automix", "samix")  # tasks, whose alpha is 2 beside every loss
ETA_1 = ("tiny_imagenet", "cub200", "aircraft")  # where static methods on ResNet-18 take eta 1 as well (D-7)
DYNAMIC = ("puzzlemix", *LEARNING)  # SaliencyMix counts as static (D-9)
CUTTING = ("cutmix", "saliencymix")
TITLES = {name: get_part(name).title for name in (*METHODS, *LEARNING)} | {"puzzlemix": "PuzzleMix"}


def mixed(run: Run, name: str, alpha: float) -> Run:
    """The run with every batch mixed by one mixer, partners by a random permutation; a learning task mixes itself."""
    if name in LEARNING:
        return run.replace(task=replace(run.task, alpha=alpha))
    special: dict[str, Callable[[Run, float], Mixer]] = {"puzzlemix": puzzle, "manifoldmix": manifold}
    mixer = special[name](run, alpha) if name in special else get_part(name, "mixer").cls(alpha=alpha)
    return run.replace(mix=Mix(choices=((mixer, 1.0),), pairing="permutation"))


def on(name: str, method: Method = same, alpha: float = 1.0, eta: float = 0.0) -> Method:
    """A method beside a mixer that mixes every batch, under DM(CE) where `eta` is above 0."""

    def under(run: Run) -> Run:
        run = method(mixed(run, name, alpha))
        return decoupled(run, eta) if eta else run

    return under


def limited(run: Run, share: float) -> Run:
    """The run on a share of all training images."""
    return run.replace(data=run.data.replace(share=share, train_size=0))


def decoupled(run: Run, eta: float) -> Run:
    """The run under DM(CE): its terms and eta times the decoupled term."""
    return run.replace(loss=run.loss.replace(terms=(*run.loss.terms, Decoupled(eta=eta))))


def rescaled(run: Run, **changes: Any) -> Run:
    """The run under sigmoid cross entropy with the rescaled targets of DM(BCE)."""
    return run.replace(loss=run.loss.replace(terms=(RescaledBinaryCrossEntropy(**changes),)))


ONE = {"cut_t": 1.0, "cut_xi": 1.0, "blend_t": 1.0, "blend_xi": 1.0}  # the mixed target itself
TWO = {"cut_t": 1.0, "cut_xi": 0.0, "blend_t": 1.0, "blend_xi": 0.0}  # 1 for both classes


@dataclass(frozen=True)
class LossColumn:
    """A column of DM's tables: a loss, and whether it goes with DM's own alpha."""

    id: str
    title: str
    apply: Callable[[Run, float], Run]  # run, eta of its method
    own_alpha: bool


MCE = LossColumn("mce", "MCE", lambda run, _: run, own_alpha=False)
DM_CE = LossColumn("dm_ce", "DM(CE)", decoupled, own_alpha=True)
DM_ALPHA = LossColumn("mce_dm_alpha", "MCE with DM's alpha", lambda run, _: run, own_alpha=True)
MBCE_ONE = LossColumn("mbce_one", "MBCE (one)", lambda run, _: rescaled(run, **ONE), own_alpha=False)
MBCE_TWO = LossColumn("mbce_two", "MBCE (two)", lambda run, _: rescaled(run, **TWO), own_alpha=False)
DM_BCE = LossColumn("dm_bce", "DM(BCE)", lambda run, _: rescaled(run), own_alpha=True)


def eta_of(name: str, setting: str, role: str) -> float:
    """The eta of DM(CE) that appendix B.3 gives a method."""
    return DYNAMIC_ETA if name in DYNAMIC or (setting in ETA_1 and role == "resnet18") else STATIC_ETA


def alpha_of(name: str, setting: str, role: str, own: bool) -> float:
    """Beta's alpha of a method: DM's where `own`, else the toolbox's."""
    if own or name in LEARNING:
        return DYNAMIC_ALPHA if name in DYNAMIC else STATIC_ALPHA
    if (setting, role) == ("pytorch", "resnet18") and name in CUTTING:
        return STATIC_ALPHA  # the toolbox's exception for the smallest net
    return ALPHA[setting][name]


def method(name: str, setting: str, role: str, loss: LossColumn) -> Method:
    """The mixer of that name under a loss, with alpha and eta as the paper sets them for `role` in `setting`."""
    alpha, eta = alpha_of(name, setting, role, loss.own_alpha), eta_of(name, setting, role)
    heavy = setting == "cifar100" and role == "resnext50" and name in CUTTING

    def under(run: Run) -> Run:
        if heavy:  # the public configurations' for cutting on ResNeXt-50 (D-16)
            run = run.replace(optim=run.optim.replace(weight_decay=5e-4))
        return loss.apply(mixed(run, name, alpha), eta)

    return under


def columns(losses: Iterable[LossColumn]) -> tuple[Column, ...]:
    """The value columns of a table of these losses."""
    return tuple(Column(loss.id, loss.title) for loss in losses)


def row(
    scale: Scale,
    name: str,
    setting: str,
    role: str,
    losses: Iterable[LossColumn],
    ours: bool = False,
    share: float = 1.0,
    suffix: str = "",
    labels: Mapping[str, str] | None = None,
) -> Row:
    """A method under several losses, on a `share` of the images; `labels` beside its name, `suffix` of its id."""
    labels = {"method": TITLES[name], **(labels or {})}
    id = f"{name}_{suffix}" if suffix else name
    base = scale.base(setting, role)
    if name in LEARNING:
        base = scale.setting(setting).learning(base, name)
    if share < 1:
        base = limited(base, share)
    runs = {loss.id: method(name, setting, role, loss)(base) for loss in losses}
    return Row(id, labels, runs, ours)


# Tables A2 to A6 compare four methods; A2, A3 and A6 on every network of every data set.
FOUR = ("saliencymix", "puzzlemix", *LEARNING)
Place = tuple[str, str, str, str]  # setting and role of the base run, titles of data and model; of one data set "" data


def gain_row(id: str, gains: Mapping[str, str], labels: Mapping[str, str] | None = None) -> Row:
    """A row of the paper's average gains: column -> the claim whose estimate it shows."""
    return Row(f"gain_{id}", {"method": "Average gain", **(labels or {})}, {}, gains=gains)


def place_table(
    scale: Scale,
    title: str,
    number: str,
    places: Sequence[Place],
    claim: str,
    losses: Sequence[LossColumn] = (MCE, DM_CE),
    seeds: int = 0,
) -> Table:
    """A table of each of the four methods at every place, and the average gain of DM(CE), whose claim begins so."""
    rows = []
    for setting, role, data, model in places:
        labels = {"data": data, "model": model} if data else {"model": model}
        suffix = f"{setting}_{role}" if data else role
        rows += [row(scale, name, setting, role, losses, suffix=suffix, labels=labels) for name in FOUR]
        rows.append(gain_row(suffix, {DM_CE.id: f"{claim}-{suffix.replace('_', '-')}"}, labels))
    data_column = (Column("data", "Data"),) if places[0][2] else ()
    return Table(
        title=title,
        paper_table=number,
        label_columns=(*data_column, Column("model", "Model"), Column("method", "Method")),
        value_columns=columns(losses),
        rows=tuple(rows),
        statistic="median_last",
        setting=scale.text_of(place[0] for place in places),
        seeds=seeds,
    )


# In FixMatch and in Self-Tuning. A row: id, title, id of the row that it is compared with, and its method.
LabelsRow = tuple[str, str, str, Callable[[Setting, Run], Run]]


def with_labels(setting: Setting, role: str, labels: int) -> tuple[Setting, Run]:
    """A setting, and its base run of a role with so many labelled images."""
    base = setting.base(role)
    return setting, base.replace(data=base.data.replace(labels=labels))


def labels_rows(
    cells: Mapping[str, tuple[Setting, Run]],
    rows: Sequence[LabelsRow],
    alpha: float,
    eta: float,
    prefix: str = "",
    **labels: str,
) -> tuple[Row, ...]:
    """Rows of methods with few labels, the first of which is ours, and of the last one with either mixer and loss.

    `cells` are setting and base run by column; `prefix` begins the ids of rows, and `labels` stand before the others.
    """

    def mixing(name: str, eta: float) -> Callable[[Setting, Run], Run]:
        return lambda _, run: on(name, alpha=alpha, eta=eta)(run)

    last, title, _, _ = rows[-1]
    found = [(*row, "") for row in rows]
    for name in ("mixup", "cutmix"):
        both = f"{title} + {TITLES[name]}"
        found.append((f"{name}_mce", both, last, mixing(name, 0.0), "MCE"))
        found.append((f"{name}_dm_ce", both, f"{name}_mce", mixing(name, eta), "DM(CE)"))
    return tuple(
        Row(
            f"{prefix}{id}",
            {**labels, "method": words, "loss": loss},
            {column: make(*cell) for column, cell in cells.items()},
            ours=id == rows[0][0],
            compared_with=f"{prefix}{against}",
        )
        for id, words, against, make, loss in found
    )
