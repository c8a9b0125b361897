"""Mixing for the Trainer of Hugging Face: training batches alone, on the device, and a collator for pairs.

    class MixTrainer(Mixing, Trainer):
        mixer, mix_loss = lumix.Switch(), lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)

    MixTrainer(model=model, args=arguments, train_dataset=..., data_collator=collate).train()

Evaluation is the Trainer's own. Draws depend on the seed of the arguments, rank and step: nothing is to be saved.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from lumix.inputs import logits_of
from lumix.integrations.streams import StepStream, TrainerMixing
from lumix.mixers.manifold import hidden_mixing


def collate(items: Sequence[Any]) -> dict[str, Any]:
    """Items (image, label), as of torchvision's data sets, or mappings with "pixel_values" and "label" or "labels"."""
    if not isinstance(items[0], Mapping):
        images, labels = default_collate([tuple(item) for item in items])
        return {"pixel_values": images, "labels": labels}
    batch = default_collate([dict(item) for item in items])
    if "label" in batch:
        batch["labels"] = batch.pop("label")
    if not {"pixel_values", "labels"} <= batch.keys():
        raise ValueError(
            f'items must hold "pixel_values" and "label" or "labels", not {sorted(batch)}: if the data set makes them '
            "on the fly, set remove_unused_columns=False in TrainingArguments"
        )
    return batch


class Mixing(TrainerMixing):
    """Mixes "pixel_values" and "labels" in training steps. Stands before Trainer among the bases."""

    BASE = "Trainer"

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.check_settings()
        args: Any = self.args  # type: ignore[attr-defined]
        if args.label_smoothing_factor:
            found = f"label_smoothing_factor={args.label_smoothing_factor}"
            raise ValueError(f"{found} does not reach a mixed loss: leave it out and give MixLoss smoothing=")
        if args.n_gpu > 1:
            raise ValueError(f"DataParallel on n_gpu={args.n_gpu} devices is not supported: start with torchrun (DDP)")
        if getattr(self, "compute_loss_func", None) is not None:
            raise ValueError("compute_loss_func would not be called in training: leave it out, mix_loss is the loss")
        self._mix_streams = StepStream()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **keywords: Any,
    ) -> Any:
        """The mixed loss in training, and the Trainer's own in evaluation."""
        if not model.training:
            own: Any = super()
            given = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch, **keywords}
            return own.compute_loss(model, inputs, **given)
        inputs = dict(inputs)
        if not {"pixel_values", "labels"} <= inputs.keys():
            raise ValueError(
                f'a training batch must hold "pixel_values" and "labels", not {sorted(inputs)}: '
                "use data_collator=lumix.integrations.transformers.collate"
            )
        images, labels = inputs.pop("pixel_values"), inputs.pop("labels")
        args, state = self.args, self.state  # type: ignore[attr-defined]
        generator = self._mix_streams.next(args.seed, args.process_index, state.global_step, images.device)
        batch = self.mixer(images, labels, generator, model)
        attends, network = self.mix_loss.rule.needs_attention, self.model  # type: ignore[attr-defined]
        if attends and hasattr(network, "config"):
            inputs["output_attentions"] = True
        with hidden_mixing(model, batch):
            outputs = model(pixel_values=batch.images, **inputs)
        attention = _attention(outputs, network, images.shape) if attends else None
        counts = self.mix_loss.counts(batch)  # the loss is the mean over these
        size = batch.size if counts is None else counts.sum()
        loss = self.mix_loss(logits_of(outputs), batch, generator, attention) * self._share(size, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _share(self, size: Tensor | int, total: Tensor | int | None) -> Any:
        """What a mean over `size` samples counts in a step of `total`; 1 where the Trainer itself divides."""
        trainer: Any = self
        if total is None or not trainer.model_accepts_loss_kwargs:
            return 1
        across = trainer.args.average_tokens_across_devices
        ranks = trainer.accelerator.num_processes // getattr(trainer, "get_tp_size", lambda: 1)() if across else 1
        return size * ranks / total


def _attention(outputs: Any, model: Any, shape: Any) -> Tensor:
    """Attention [B, patches] of the class token, heads averaged, from what the model returned for images of `shape`."""
    found, patch = getattr(outputs, "attentions", None), getattr(getattr(model, "config", None), "patch_size", None)
    if not found or found[-1] is None or not isinstance(patch, int):
        raise ValueError(
            "this label rule reads the class token's attention, and the model returns none: load a ViT or DeiT of "
            "transformers with attn_implementation='eager'"
        )
    if dropped := getattr(model.config, "attention_probs_dropout_prob", 0):
        found = f"attention is returned after dropout, with attention_probs_dropout_prob={dropped}"
        raise ValueError(f"{found}, so that the label weights would be noise: load the model with 0 in its place")
    last: Tensor = found[-1]  # [B, heads, tokens, tokens], patches last
    return last.mean(dim=1)[:, 0, -(shape[-2] // patch) * (shape[-1] // patch) :]
