"""Decoupled Mixup's propositions on free logits: the decoupled term changes the path of training, not its end."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import style
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lumix import functional

WEIGHT, CLASSES, RATE, UPDATES = 0.7, 10, 0.25, 2000
OWN, PARTNER = torch.tensor([0]), torch.tensor([1])


@dataclass(frozen=True)
class Path:
    """Probabilities of the two mixed classes [UPDATES + 1, 2] under gradient descent."""

    label: str
    pair: Tensor


def descend(label: str, mixed: float, eta: float) -> Path:
    """Descend `mixed` times the mixed cross entropy plus `eta` times the decoupled term, from equal logits."""
    z = torch.zeros(1, CLASSES, dtype=torch.float64)
    weight = torch.tensor([WEIGHT], dtype=torch.float64)
    visited = []
    for _ in range(UPDATES + 1):
        z.requires_grad_()
        log_p = functional.log_softmax(z)
        visited.append(log_p.detach()[0, :2].exp())
        loss = mixed * functional.soft_cross_entropy(log_p, OWN, PARTNER, weight).sum()
        loss = loss + eta * functional.decoupled(z, OWN, PARTNER).sum()
        z = (z - RATE * torch.autograd.grad(loss, z)[0]).detach()
    return Path(label, torch.stack(visited))


def paths() -> list[Path]:
    """MCE, DM(CE) of three strengths, and the decoupled term alone."""
    mixed = [descend("MCE" if not eta else f"DM(CE), η = {eta:g}", 1.0, eta) for eta in (0.0, 0.1, 1.0, 4.0)]
    return [*mixed, descend("decoupled term alone", 0.0, 1.0)]


def _draw(axes: Axes, found: list[Path], last: int, ratio: bool) -> None:
    for path, colour, line in zip(found, style.LAWS, style.LINES, strict=False):
        own, partner = path.pair[: last + 1].unbind(1)
        values = own / (own + partner) if ratio else own + partner
        axes.plot(range(last + 1), values, color=colour, linestyle=line, label=path.label)
    axes.set_xlabel("updates of free logits")
    axes.set_ylim(0, 1.02)


def propositions() -> Figure:
    """Mass of the pair over the first updates, and the share of the own class in it to the end."""
    found = paths()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    _draw(left, found, 40, ratio=False)
    left.set_title("Mass of both classes: the path differs")
    left.set_ylabel("p(own) + p(partner)")
    left.legend(loc="lower right")
    _draw(right, found, UPDATES, ratio=True)
    right.axhline(WEIGHT, color=style.PAPER, linewidth=1)
    right.annotate(f"λ = {WEIGHT:g}", (UPDATES, WEIGHT), ha="right", va="bottom", color=style.PAPER)
    right.set_title("Share of the own class: the end is λ")
    right.set_ylabel("p(own) / (p(own) + p(partner))")
    return figure
