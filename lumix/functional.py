"""The equations of LUMix and of Decoupled Mixup (DM) as functions of tensors; docs/equations.md is their index.

Shape legend: B samples, C classes. `labels` [B] is the own class (the canvas, the paper's image B), `partner_labels`
[B] the class of the partner (what is pasted, the paper's image A). Label weights are per sample, [B], and belong to the
OWN label; the paper's lambda is one minus that. Every function is free of branches on data, of `.item()` and of state,
so it runs under torch.compile and torch.func.vmap. Readings of unclear passages carry the number of the register in
docs/deviations.md (I-1, I-2, ...).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision input as float32; float32 and float64 as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities [B, C] of logits [B, C], in float32 even under autocast."""
    return F.log_softmax(at_least_float32(logits), dim=-1)


def take(values: Tensor, labels: Tensor) -> Tensor:
    """The entry [B] of each row of `values` [B, C] that `labels` [B] names."""
    return values.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def mix_weights(area: Tensor, random: Tensor, predicted: Tensor, r_r: float | Tensor, r_s: float | Tensor) -> Tensor:
    """LUMix, equation 3: lambda = (1 - r_r - r_s) lambda_0 + r_r lambda_r + r_s lambda_s, of label weights [B].

    `area` is the weight by pasted area (lambda_0), `random` a draw (lambda_r), `predicted` what the network says
    (lambda_s): all three own weights, or all three partner weights. The result is in [0, 1] if they are.
    """
    return (1 - r_r - r_s) * area + r_r * random + r_s * predicted


def predicted_weight(logits: Tensor, labels: Tensor, partner_labels: Tensor, scores: str = "softmax") -> Tensor:
    """LUMix, equations 4 and 5: 1 - lambda_s = p[y1] / (p[y1] + p[y2]), read from the prediction, [B] in [0, 1].

    For softmax probabilities the ratio is the sigmoid of a logit difference: no softmax, no 0/0, exact in float32.
    Of the other `scores` "double_softmax" takes equation 4 at its word, a softmax of probabilities (I-4), which
    confines the result to (0.269, 0.731); "sigmoid" uses per-class sigmoids (I-17).
    """
    own = at_least_float32(take(logits, labels))
    partner = at_least_float32(take(logits, partner_labels))
    if scores == "softmax":
        return torch.sigmoid(own - partner)
    if scores == "double_softmax":
        p = log_softmax(logits).exp()
        return torch.sigmoid(take(p, labels) - take(p, partner_labels))
    if scores == "sigmoid":
        return torch.sigmoid(F.logsigmoid(own) - F.logsigmoid(partner))
    raise ValueError(f"scores must be 'softmax', 'double_softmax' or 'sigmoid', not {scores!r}")


def attention_weight(attention: Tensor, own_share: Tensor) -> Tensor:
    """TransMix, attention: own weight [B] in [0, 1], sum of A over the own image's patches over its sum over all.

    A is the class token's `attention` [B, P] on the patches of the mixed image, at least 0, of any sum; `own_share`
    [B, P] is the share of the own image in each patch, in [0, 1].
    """
    # Attention that underflows to 0 everywhere would be 0/0; it then says nothing, and each patch counts the same.
    attention = at_least_float32(attention) + torch.finfo(torch.float32).tiny
    return (attention * own_share).sum(dim=-1) / attention.sum(dim=-1)


def soft_cross_entropy(
    log_p: Tensor, labels: Tensor, partner_labels: Tensor, own_weight: Tensor, smoothing: float = 0.0
) -> Tensor:
    """LUMix, equation 6, first term: cross entropy [B] against y = (1 - lambda) Y1 + lambda Y2, by class index.

    DM, proposition 1: its gradient for the logits is p - y, so it is least where p = y, whatever the images show.

    `log_p` [B, C] are log-probabilities; `smoothing` has timm's convention, off-value smoothing / C. Smoothing both
    one-hots before mixing equals smoothing the mixed target, so it is one mean over the classes.
    """
    pair = own_weight * take(log_p, labels) + (1 - own_weight) * take(log_p, partner_labels)
    if not smoothing:
        return -pair
    return -(1 - smoothing) * pair - smoothing * log_p.mean(dim=-1)


def pair_targets(
    labels: Tensor, partner_labels: Tensor, own_weight: Tensor, num_classes: int, smoothing: float = 0.0
) -> Tensor:
    """Both entries y [2, B] of the mixed, smoothed target, at own and partner class; a same-class pair's one twice."""
    same = labels == partner_labels
    weights = torch.stack([own_weight.masked_fill(same, 1), (1 - own_weight).masked_fill(same, 1)])
    return (1 - smoothing) * weights + smoothing / num_classes


def binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    partner_labels: Tensor,
    targets: Tensor,
    off: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Sigmoid cross entropy summed over classes [B]: `targets` [2, B] at the two classes, `off` [B] elsewhere.

    A same-class pair counts its class once. Divide by C for timm's mean over classes; `weight` and `pos_weight` [C]
    are those of torch.
    """
    z = at_least_float32(logits)
    # A class of target t has softplus(z) - t gain.
    gain = z if pos_weight is None else z - (pos_weight - 1) * F.softplus(-z)
    zero = F.softplus(z)
    if weight is not None:
        zero, gain = weight * zero, weight * gain
    own, partner = targets
    second = torch.where(labels == partner_labels, torch.zeros_like(partner), partner - off)
    positive = (own - off) * take(gain, labels) + second * take(gain, partner_labels) + off * gain.sum(dim=-1)
    return zero.sum(dim=-1) - positive


def indicator(same: Tensor, reading: str = "or") -> Tensor:
    """LUMix, equation 8: b at the own and at the partner class, [2, B] bool.

    b = y_A "or" y_B as in Algorithm 1, or "and" as printed in equation 8, which leaves R to same-class pairs (I-5).
    Where both classes coincide, `same` [B] bool, the class counts once, in the first entry.
    """
    if reading == "or":
        return torch.stack([torch.ones_like(same), ~same])
    if reading == "and":
        return torch.stack([same, torch.zeros_like(same)])
    raise ValueError(f"reading must be 'or' or 'and', not {reading!r}")


def rest(logits: Tensor, labels: Tensor, partner_labels: Tensor) -> Tensor:
    """log of the sum of exp(z_c) over the classes c outside the pair, [B]: with what both compete in DM."""
    return torch.logsumexp(without_pair(logits, torch.stack([labels, partner_labels])), dim=-1)


def without_pair(logits: Tensor, index: Tensor) -> Tensor:
    """A copy of logits [B, C] with the smallest number at the classes `index` [2, B], in float32 or wider."""
    z = at_least_float32(logits)
    return z.scatter(-1, index.t(), torch.finfo(z.dtype).min)  # -inf makes NaN gradients where there is no other class


def decoupled(logits: Tensor, labels: Tensor, partner_labels: Tensor) -> Tensor:
    """DM, decoupled softmax: -log phi[a|b] and -log phi[b|a] [2, B], at least 0; for two different classes.

    phi[a|b] = exp(z_a) / sum of exp(z_c) over c != b, the softmax without the other mixed class. With `rest` r that is
    sigmoid(z_a - r): no probability is taken from 1, which would lose all digits as p_b -> 1.

    DM, proposition 2: the gradient of their sum is p_a / (1 - p_b) - 1 for z_a, p_b / (1 - p_a) - 1 for z_b, both at
    most 0, and p_c (1 / (1 - p_b) + 1 / (1 - p_a)) for the others: free of lambda, and 0 where p_a + p_b = 1.
    """
    z = at_least_float32(logits)
    z = z - z.detach().amax(dim=-1, keepdim=True)  # an offset of all logits would take digits from the differences
    pair = torch.stack([take(z, labels), take(z, partner_labels)])
    return F.softplus(rest(z, labels, partner_labels) - pair)


def rescale(weight: Tensor, t: float | Tensor, xi: float | Tensor) -> Tensor:
    """DM, rescaled target: r(lambda; t, xi) = min(1, lambda / t) ^ xi for label weights `weight`, in [0, 1].

    r(0), and r of a weight below 0, is 0 for xi > 0 and 1 for xi = 0.
    """
    return (weight / t).clamp(0, 1) ** xi


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """AutoMix, momentum update: theta_k <- m theta_k + (1 - m) theta_q, for all parameters; Self-Tuning has it too.

    Buffers, as the statistics of batch normalisation, stay the slow module's own. What freezing has made a buffer of
    the fast module counts as the parameter that it was.
    """
    found = {**dict(fast.named_buffers()), **dict(fast.named_parameters())}
    torch._foreach_lerp_(list(slow.parameters()), [found[name] for name, _ in slow.named_parameters()], 1 - momentum)
