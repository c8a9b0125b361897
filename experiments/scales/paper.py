"""Paper scale: ImageNet-1k, the paper's models and recipes, 8 A100 for each run. This is the replication proper."""

from functools import partial

from evaluation.arguments import Recipe
from evaluation.evaluation import Evaluation
from experiments import learning, recipes
from experiments.scale import AS_PUBLISHED, Scale, Setting, robustness, segmentation, semi_images
from experiments.scales import fine_grained
from lumix.registry import name_of
from training.config import Execution, Run

# Of each role the recipe, A100-hours of a run and, beside them, what Table 1 reports without and with LUMix.
#     python -m slurm submit lumix_table01_models --only deit_s --scale paper --cluster a100
# Hours are timm's published training speeds on an RTX 3090, times 2.13 for an A100, 0.9 for eight GPUs, 1.25 for
# loading and validation: budget up to twice as much.
RECIPES = (
    (recipes.convnext("convnext_t", "convnext_tiny", drop_path_rate=0.1), 85.0),  # 82.1, 82.5
    (recipes.convnext("convnext_s", "convnext_small", drop_path_rate=0.4), 142.9),  # 83.1, 83.3
    (recipes.convnext("convnext_b", "convnext_base", drop_path_rate=0.5), 205.4),  # 83.8, 84.1
    (recipes.swin("swin_t", "swin_tiny_patch4_window7_224", drop_path_rate=0.2), 107.3),  # 81.3, 81.7
    (recipes.swin("swin_s", "swin_small_patch4_window7_224", drop_path_rate=0.3), 174.0),  # 83.0, 83.1
    (recipes.swin("swin_b", "swin_base_patch4_window7_224", drop_path_rate=0.5), 247.7),  # 83.5, 83.6
    (recipes.deit("deit_s", "deit_small_patch16_224"), 66.2),  # 79.8, 80.6
    (recipes.deit("deit_b", "deit_base_patch16_224"), 178.5),  # 81.8, 82.2
    (recipes.xcit("xcit_s", "xcit_small_12_p16_224", drop_path_rate=0.05, eta=1.0), 144.8),  # 82.0, 82.3
    (recipes.xcit("xcit_m", "xcit_medium_24_p16_224", drop_path_rate=0.15, eta=1e-5), 385.2),  # 82.7, 83.2
    (recipes.xcit("xcit_l", "xcit_large_24_p16_224", drop_path_rate=0.25, eta=1e-5), 697.9),  # 82.9, 83.6
    (recipes.deit_recipe_resnet("resnet50", "resnet50"), 57.2),  # 78.6, 79.1 in Table 6
    (recipes.plain_resnet("resnet101", "resnet101"), 36.3),  # a third of the epochs, 1.9 times the multiply-adds
)
RUNS = {run.model.role: run for run, _ in RECIPES}
A100_HOURS = {run.model.role: hours for run, hours in RECIPES}
# The same of the recipes of Decoupled Mixup, by data set and optimizer; CIFAR-100 is 800 epochs of all images.
DM_HOURS = {
    ("imagenet", "momentum"): {"resnet18": 6.7, "resnet34": 11.4, "resnet50": 19.1},
    ("imagenet", "lamb"): {"resnet34": 6.3, "resnet50": 10.5},  # at 160 pixels
    ("cifar100", "momentum"): {"resnet18": 1.4, "resnext50": 4.5, "wrn28_8": 3.7},
    ("tiny_imagenet", "momentum"): {"resnet18": 2.8, "resnext50": 11.1},
}
SEMI_IMAGES_PER_HOUR = {"wrn28_2": 1.2e8, "wrn28_8": 1.1e7}  # WRN-28-8's from the line above, WRN-28-2's assumed
# Time of a step as a multiple of CutMix's. Saliency, Puzzle-Mix: the paper's own speeds on DeiT-S (Table 6). Attentive:
# a ResNet-50 forward pass at 224 pixels beside three of DeiT-S or ResNet-50. AutoMix, SAMix: assumed (the published
# cost is up to three plain steps). All others cost nothing on top.
METHOD_FACTOR = {"saliencymix": 1.03, "puzzlemix": 2.4, "attentivecutmix": 1.3, "automix": 1.7, "samix": 1.9}

SEGMENTER = Recipe("pascal_context", precision="bfloat16")
DEEPLAB = SEGMENTER.replace(decoder="deeplabv3plus", iterations=40_000, lr=4e-3, min_lr=1e-4, weight_decay=1e-4)
DINO = "vit_small_patch16_224.dino"
PATCH = 16
CIFAR = {"resnet18": "resnet18", "resnext50": "resnext50_32x4d"}
run = RUNS.__getitem__


def cifar100(role: str) -> Run:
    """The base run of a role on CIFAR-100."""
    return recipes.wide(role) if role == "wrn28_8" else recipes.cifar100(role, CIFAR[role])


SEMI = "2^20 updates of 64 labelled images by SGD, all training images without labels beside them"
SETTINGS = {
    "deit": Setting(
        run,
        evaluations=robustness(run("deit_s"), PATCH, {"timm": DINO}, AS_PUBLISHED),
        notes={"attention": "DINO ViT-S/16"},
        learning=learning.under_deit,
    ),
    "cifar100": Setting(
        cifar100,
        "CIFAR-100 at 32 pixels or the stated share of its training images, CIFAR stems, 800 epochs of SGD (WRN-28-8: "
        "400, D-13).",
        learning=learning.on_cifar100,
    ),
    "cifar100_half": Setting(
        lambda role: cifar100(role).replace(epochs=400),
        "CIFAR-100 at 32 pixels, ResNet-18, 400 epochs of SGD.",
        learning=learning.on_cifar100,
    ),
    "tiny_imagenet": Setting(
        lambda role: recipes.tiny_imagenet(role, CIFAR[role]),
        "Tiny-ImageNet at 64 pixels, CIFAR stems, 400 epochs of SGD.",
        learning=learning.on_tiny_imagenet,
    ),
    "semi_cifar10": Setting(
        partial(recipes.semi_supervised, "cifar10"),
        f"{SEMI}; CIFAR-10 with WRN-28-2.",
        learning=learning.semi_supervised,
        labels=(40, 250, 4000),
    ),
    "semi_cifar100": Setting(
        partial(recipes.semi_supervised, "cifar100"),
        f"{SEMI}; CIFAR-100 with WRN-28-8.",
        learning=partial(learning.semi_supervised, mixmatch_weight=150.0),
        labels=(400, 2500, 10_000),
    ),
    **fine_grained.SETTINGS,
    "pytorch": Setting(
        lambda role: recipes.pytorch_style(role, role),
        "ImageNet-1k at 224 pixels, ResNets under 100 epochs of SGD at batch 256, crop and flip, 8 A100.",
        learning=learning.under_sgd,
    ),
    "rsb_a3": Setting(
        lambda role: recipes.rsb_a3(role, role),
        "ImageNet-1k, ResNet-50 under RSB A3 with LAMB, 100 epochs, trained at 160 and tested at 224 pixels, 8 A100.",
        learning=learning.on_imagenet,
    ),
    "objects": Setting(
        run,
        "DeiT-S as in the paper; masks on Pascal VOC 2012 val at 512 pixels, boxes on ImageNet val at 224 pixels, "
        "drawn by the declared setting that comes closest to the paper's 34.9 on the public DeiT-S weights.",
        {
            "boxes": Evaluation(
                "weak_localisation", {"public_weights": "deit_small_patch16_224.fb_in1k", "reference": 34.9}
            ),
            "masks": Evaluation("weak_segmentation", {"mass": 0.9}),
        },
    ),
    "segmentation": Setting(
        run,
        "Pascal Context, 59 classes and background, at 480 pixels: DeiT-S of the paper's recipe with Segmenter's mask "
        "transformer (80 000 updates of 16 crops), ResNet-101 with DeepLabV3+ (40 000 updates), each on one GPU.",
        segmentation(segmenter=SEGMENTER, deeplab=DEEPLAB),
        notes={"deeplab": "the library's DeepLabV3+ on a ResNet-101 of our own pre-training"},
    ),
    "adversarial": Setting(
        run,
        "DeiT-S of the paper's recipe on ImageNet-A (7500 images) and on ImageNet-O (2000 images against the 10000 "
        "validation images of the same 200 classes), logits restricted to the 200 classes first.",
        {"natural": Evaluation("natural_adversarial")},
    ),
}


def hours(run: Run) -> float:
    """A100-hours of one seed, by the dearest of its mixers."""
    factor = max(METHOD_FACTOR.get(name, 1.0) for name in (name_of(run.task), *run.mix.names))
    if run.data.name in fine_grained.LABELS:
        return fine_grained.hours(run) * factor
    if run.data.labels:
        return semi_images(run) / SEMI_IMAGES_PER_HOUR[run.model.role]
    of_role = DM_HOURS.get((run.data.name, run.optim.name), A100_HOURS)
    length = run.data.share * (run.epochs / 800 if run.data.name == "cifar100" else 1)
    return of_role[run.model.role] * length * factor


SCALE = Scale(
    name="paper",
    text="ImageNet-1k at 224 pixels, the paper's models and recipes (300 epochs, XCiT 400), 8 A100 for each run.",
    seeds=1,  # the paper gives no error bars; one run of every cell already costs thousands of GPU-hours
    headline_seeds=3,
    more_seeds=3,
    settings=SETTINGS,
    patch=PATCH,
    hours=hours,
    replicates=True,
    execution=Execution(device="cuda"),
    gpus=8,
    processes=1,
    dollars_per_gpu_hour=2.0,  # a round figure for a rented A100, not a quote: put your own here
)
