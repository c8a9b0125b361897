"""The mixin under Hugging Face's Trainer itself: accumulation, evaluation, columns, resumption."""

import pytest
import torch
from batches import stream

import lumix
from lumix.integrations.transformers import Mixing, collate

transformers = pytest.importorskip("transformers", reason="needs pip install .[integrations]")
pytest.importorskip("accelerate", reason="needs pip install .[integrations]")
CLASSES = 5
PAIRS = list(zip(torch.rand(14, 3, 8, 8, generator=stream()), (torch.arange(14) % CLASSES).tolist(), strict=True))


def network(dropped=0.0):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=dropped,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(config)


class Linear(torch.nn.Module):
    """A module of plain torch, which takes no `num_items_in_batch`; its checkpoints are torch's own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(192, CLASSES)

    def forward(self, pixel_values, labels=None):
        logits = self.layer(pixel_values.flatten(1))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


class MixTrainer(Mixing, transformers.Trainer):
    mixer, mix_loss = lumix.Switch(mode="elem"), lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)


class Plain(MixTrainer):
    mixer, mix_loss = lumix.Mixup(prob=0.0), lumix.MixLoss()


def trainer_of(folder, kind=MixTrainer, dataset=PAIRS, collator=collate, model=network, **options):
    options = {
        "per_device_train_batch_size": 4, "max_steps": 4, "report_to": [], "use_cpu": True, "save_strategy": "no",
        "disable_tqdm": True, "logging_strategy": "no", "lr_scheduler_type": "constant", "learning_rate": 0.1,
        "dataloader_pin_memory": False, "optim": "sgd",
    } | options  # fmt: skip
    arguments = transformers.TrainingArguments(str(folder), **options)
    return kind(model=model(), args=arguments, train_dataset=dataset, eval_dataset=dataset, data_collator=collator)


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("model", [network, Linear])
@pytest.mark.parametrize("steps", [1, 2])
def test_without_mixing_it_is_the_trainers_own_training(tmp_path, steps, model):
    """Also with accumulated gradients and a smaller last batch: every sample counts the same."""
    ours, theirs = (
        trainer_of(tmp_path, kind, gradient_accumulation_steps=steps, model=model)
        for kind in (Plain, transformers.Trainer)
    )
    assert ours.train().training_loss == pytest.approx(theirs.train().training_loss, rel=1e-5)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)


def test_training_is_mixed_and_evaluation_is_the_trainers_own(tmp_path):
    mixed = trainer_of(tmp_path)
    before = mixed.evaluate()["eval_loss"]
    assert before == pytest.approx(trainer_of(tmp_path, transformers.Trainer).evaluate()["eval_loss"])
    mixed.train()
    plain = trainer_of(tmp_path, Plain)
    plain.train()
    assert not torch.allclose(weights(mixed), weights(plain), atol=1e-4)
    assert mixed.predict(PAIRS).predictions.shape == (14, CLASSES)


@pytest.mark.parametrize("key", ["label", "labels"])
def test_mappings_and_columns_that_no_model_takes(tmp_path, key):
    items = [{"pixel_values": image, key: label, "path": "a"} for image, label in PAIRS]
    trainer_of(tmp_path, dataset=items).train()
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        collate([{"labels": 1}])


def test_default_collator_of_transformers(tmp_path):
    items = [{"pixel_values": image, "label": label} for image, label in PAIRS]
    trainer_of(tmp_path, dataset=items, collator=None).train()


def test_a_resumed_run_ends_in_the_weights_of_one_that_was_not_stopped(tmp_path):
    whole, first, second = (
        trainer_of(
            tmp_path / name, save_strategy="steps", save_steps=2, gradient_accumulation_steps=2, model=Linear, **options
        )
        for name, options in (("whole", {}), ("cut", {"max_steps": 2}), ("cut", {}))
    )
    whole.train()
    first.train()
    second.train(resume_from_checkpoint=True)
    assert torch.equal(weights(whole), weights(second))


@pytest.mark.parametrize("mixer", [lumix.ManifoldMix(("classifier",)), lumix.PuzzleMix()])
def test_mixers_that_look_into_the_network(tmp_path, mixer):
    trainer = trainer_of(tmp_path, type("Deep", (MixTrainer,), {"mixer": mixer}), max_steps=2)
    assert trainer.train().global_step == 2


def test_attention_is_that_of_the_models_own_forward_pass(tmp_path):
    seen = []
    attends = type("Attends", (MixTrainer,), {"mixer": lumix.CutMix(), "mix_loss": lumix.MixLoss(lumix.TransMixRule())})
    attends.mix_loss.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[3]))

    def eager(dropped=0.0):
        model = network(dropped)
        model.set_attn_implementation("eager")
        return model

    assert trainer_of(tmp_path, attends, model=eager, max_steps=2).train().global_step == 2
    assert [list(attention.shape) for attention in seen] == [[4, 4]] * 2
    with pytest.raises(ValueError, match=r"attention_probs_dropout_prob=0\.1.*load the model with 0"):
        trainer_of(tmp_path, attends, model=lambda: eager(0.1), max_steps=1).train()
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        trainer_of(tmp_path, attends, model=Linear, max_steps=1).train()


def test_what_would_be_ignored_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give MixLoss smoothing="):
        trainer_of(tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(TypeError, match=r"write class Late\(Mixing, Trainer\)"):
        type("Late", (transformers.Trainer, Mixing), {})
    trainer = trainer_of(tmp_path)
    trainer.model.train()
    with pytest.raises(ValueError, match="data_collator="):
        trainer.compute_loss(trainer.model, {"image": torch.rand(2, 3, 8, 8)})
    loss, outputs = trainer.compute_loss(trainer.model, collate(PAIRS[:4]), return_outputs=True)
    assert loss.ndim == 0
    assert outputs.logits.shape == (4, CLASSES)
