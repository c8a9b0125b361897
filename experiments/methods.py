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


def headline(scale: Scale) -> frozenset[str]:
    """Keys of the runs of the headline comparison: CutMix, LUMix, and the control the paper omitted."""
    if HEADLINE_ROLE in scale.unavailable:
        return frozenset()
    base = scale.run(HEADLINE_ROLE)
    return frozenset(run.key for run in (base, lumix(base), constant_control(base)))
