"""The methods of the tables as functions from a base run to a run: equal methods, equal runs, whichever table asks."""

from experiments.scale import Scale
from lumix.train.config import Run

HEADLINE_ROLE = "deit_s"


def with_loss(run: Run, **changes: object) -> Run:
    """The run with some fields of its loss changed."""
    return run.replace(loss=run.loss.replace(**changes))


def with_mix(run: Run, **changes: object) -> Run:
    """The run with some fields of its mixing changed."""
    return run.replace(mix=run.mix.replace(**changes))


def same(run: Run) -> Run:
    """The base run itself: Mixup and CutMix, the ordinary loss."""
    return run


def components(run: Run, r_r: float, r_s: float, eta: float = 0.0) -> Run:
    """Parts of LUMix: weights of the random and of the predicted ratio, R only where eta is above 0."""
    return with_loss(run, r_r=r_r, r_s=r_s, eta=eta)


def lumix(run: Run, **changes: object) -> Run:
    """LUMix in full: 0.4 of a Beta(2, 2) draw, 0.1 of the predicted ratio, R (best rows of Tables 3 and 10)."""
    return with_loss(run, **{"r_r": 0.4, "r_s": 0.1, "eta": 1.0, **changes})


def constant_control(run: Run) -> Run:
    """LUMix with the random ratio fixed at its mean 1/2: the same expected gradient, no noise (methods.md 2.3 b)."""
    return lumix(run, law="constant", law_parameter=0.5)


def random_shuffle(run: Run, patch: int) -> Run:
    """Random Shuffling: patches of the mixed image are permuted (Table 12)."""
    return with_mix(run, shuffle_patch=patch)


def random_lambda(run: Run, patch: int) -> Run:
    """Random lambda: one Beta(0.8, 0.8) ratio for each patch, in place of both Mixup and CutMix (Table 12, I-18)."""
    return with_mix(run, random_lambda_patch=patch, mixup_alpha=0.8, cutmix_alpha=0.0)


def without_cutmix(run: Run) -> Run:
    """Mixup alone, the baseline of Table 6."""
    return with_mix(run, cutmix_alpha=0.0)


def in_place_of_cutmix(run: Run, method: str, **changes: object) -> Run:
    """A rival of Table 6 in CutMix's place in the switch, Mixup kept, with its authors' defaults."""
    return with_mix(run, **{"method": method, "cutmix_alpha": 1.0, **changes})


def puzzle_mix(run: Run) -> Run:
    """Puzzle-Mix; transport moves cells of 4 pixels on small images, as on CIFAR, and whole blocks on all others."""
    small = 32 <= run.data.image_size <= 64
    return in_place_of_cutmix(run, "puzzlemix", transport_size=4 if small else -1)


def attentive_cutmix(run: Run) -> Run:
    """Attentive-CutMix: 6 of the 7x7 cells of a ResNet-50 pretrained on ImageNet that sees the images at 224 pixels.

    For embedded sets a tiny ResNet that was trained on them stands in for it: 2 of 4x4 cells on the digits.
    """
    if run.data.name in ("digits", "shapes"):
        return in_place_of_cutmix(run, "attentivecutmix", frozen_network="embedded", frozen_size=0, cells=2)
    return in_place_of_cutmix(run, "attentivecutmix", frozen_network="resnet50.tv_in1k", frozen_size=224, cells=6)


def manifold_mix(run: Run) -> Run:
    """ManifoldMix with the alpha of its authors' CIFAR runs."""
    return in_place_of_cutmix(run, "manifoldmix", cutmix_alpha=2.0)


def transmix(run: Run) -> Run:
    """TransMix: the label weight of CutMix images is the mean of area and attention."""
    return with_loss(run, r_a=0.5)


def lumix_and_attention(run: Run) -> Run:
    """LUMix that gives half of the area's remaining 0.5 to attention, as TransMix gives half of the whole (ours)."""
    return lumix(run, r_a=0.25)


def headline(scale: Scale) -> frozenset[str]:
    """Keys of the runs of the headline comparison: CutMix, LUMix, and the control the paper omitted."""
    if HEADLINE_ROLE in scale.unavailable:
        return frozenset()
    base = scale.run(HEADLINE_ROLE)
    return frozenset(run.key for run in (base, lumix(base), constant_control(base)))
