"""Self-Tuning (Wang et al. 2021): pseudo-group contrast against queues of keys, one for each class.

Shape legend: B queries, C classes, D places of a queue, F features of a projection.
"""

import torch
from torch import Tensor, nn

from lumix.functional import at_least_float32
from lumix.inputs import Count, Positive, checked

TEMPERATURE = 0.07


def group_contrast(
    queries: Tensor,
    own_keys: Tensor,
    labels: Tensor,
    queue: Tensor,
    filled: Tensor,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Pseudo-group contrast [B], at least 0: KL(uniform over the positives || softmax of q k / temperature).

    Positives of a query are the key of its own other view and the queued keys of its (pseudo-)class, equations 4 and 5
    of the paper; the keys of all other classes are negatives. Places that no key has taken yet do not occur.

    Args:
        queries: [B, F] of length 1, with gradient.
        own_keys: [B, F] of length 1, of the queries' own other views; a constant here.
        labels: [B] int64, labels or pseudo-labels.
        queue: [C, D, F] of length 1, a constant here.
        filled: [C, D] bool, which places of the queue hold a key.

    Returns:
        [B] in float32 or wider, even under autocast.
    """
    checked("temperature", temperature, Positive)
    with torch.autocast(queries.device.type, enabled=False):
        queries, own_keys, queue = (at_least_float32(x) for x in (queries, own_keys.detach(), queue.detach()))
        own = (queries * own_keys).sum(dim=1) / temperature
        queued = queries @ queue.flatten(0, 1).t() / temperature
        known = queued.masked_fill(~filled.flatten(), -torch.inf)
        normaliser = torch.logsumexp(torch.cat([own.unsqueeze(1), known], dim=1), dim=1)
        group = queued.view(len(queries), *filled.shape)[torch.arange(len(labels), device=labels.device), labels]
        count = 1 + filled[labels].sum(dim=1)
        positive = (own + group.masked_fill(~filled[labels], 0).sum(dim=1)) / count
        return normaliser - positive - count.log()


class ClassQueues(nn.Module):
    """The last `places` keys of each class, first in, first out, as buffers.

    Attributes:
        keys: [C, D, F] float32.
        taken: [C] int64, how many keys ever came in.
    """

    keys: Tensor
    taken: Tensor

    def __init__(self, classes: int, places: int, features: int) -> None:
        super().__init__()
        for name, value in (("classes", classes), ("places", places), ("features", features)):
            checked(name, value, Count)
        self.register_buffer("keys", torch.zeros(classes, places, features))
        self.register_buffer("taken", torch.zeros(classes, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """[C, D] bool, which places hold a key."""
        return torch.arange(self.keys.shape[1], device=self.taken.device) < self.taken.unsqueeze(1)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor) -> None:
        """Let keys [B, F] with labels [B] in, in their order; of more than D of one class the last D stay.

        No question about values, hence no wait for a device, and deterministic there.
        """
        places = self.keys.shape[1]
        before = (labels.unsqueeze(1) == labels).tril(-1).sum(dim=1)  # of the same class in this batch
        place = (self.taken[labels] + before) % places
        self.keys[labels, place] = keys.to(self.keys.dtype)[last_of_place(labels * places + place)]
        self.taken.index_add_(0, labels, torch.ones_like(labels))


def last_of_place(place: Tensor) -> Tensor:
    """For each of B that go to the places [B] int64, the last of those that go to the same one: [B] int64.

    Where each writes what its last writes, it does not matter which of several writes wins, which devices leave open.
    """
    number = torch.arange(len(place), device=place.device)
    return torch.where(place.unsqueeze(1) == place, number, -1).amax(dim=1)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow <- momentum slow + (1 - momentum) fast, for all parameters; buffers stay the slow module's own."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)
