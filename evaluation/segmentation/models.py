"""Segmentation models on the weights of a pre-trained run: Segmenter's mask transformer, a library's DeepLabV3+."""

import timm
import torch
from timm.models import ResNet
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, pad

from evaluation.images import Card
from evaluation.segmentation.recipe import Recipe

AUXILIARY_STAGE = 4  # of the encoder's feature maps: layer3, as in mmseg


class MaskTransformer(nn.Module):
    """Segmenter's decoder (Strudel et al. 2021): class tokens attend with the patches, whose scores are cosines.

    `width` is that of the patch features too; `small` initialises for small widths, as Model.init "small" does.
    """

    def __init__(self, width: int, heads: int, num_classes: int, dropout: float = 0.1, small: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed = nn.Linear(width, width)
        self.class_tokens = nn.Parameter(torch.zeros(1, num_classes, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, proj_drop=dropout, attn_drop=dropout) for _ in range(2))
        )
        self.norm = nn.LayerNorm(width)
        self.project_patches = nn.Linear(width, width, bias=False)
        self.project_classes = nn.Linear(width, width, bias=False)
        self.score_norm = nn.LayerNorm(num_classes)
        # Segmenter's law, or one for widths below a hundred, where its 0.02 lets signals fade.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight) if small else nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_tokens, std=0.2 if small else 0.02)
        for projection in (self.project_patches, self.project_classes):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def forward(self, patches: Tensor) -> Tensor:
        """Scores [B, P, num_classes] of patch features [B, P, width]."""
        tokens = torch.cat((self.embed(patches), self.class_tokens.expand(len(patches), -1, -1)), dim=1)
        tokens = self.norm(self.blocks(tokens))
        seen, classes = tokens.split((patches.shape[1], self.num_classes), dim=1)
        seen = normalize(self.project_patches(seen), dim=-1)
        classes = normalize(self.project_classes(classes), dim=-1)
        scores: Tensor = self.score_norm(seen @ classes.transpose(1, 2))
        return scores


class Segmenter(nn.Module):
    """A ViT and a mask transformer: images [B, C, H, W] of any size -> logits [B, num_classes, H, W]."""

    def __init__(self, encoder: VisionTransformer, decoder: MaskTransformer) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = self.encoder.patch_embed.patch_size
        height, width = images.shape[2:]
        # Padded below and on the right with zeros, the mean of normalised images; cut off again at the end.
        images = pad(images, (0, -width % columns, 0, -height % rows))
        full = (images.shape[2], images.shape[3])
        tokens = self.encoder.forward_features(images)[:, self.encoder.num_prefix_tokens :]
        scores = self.decoder(tokens)
        maps = scores.transpose(1, 2).unflatten(2, (full[0] // rows, full[1] // columns))
        return interpolate(maps, full, mode="bilinear", align_corners=False)[:, :, :height, :width]


class DeepLab(nn.Module):
    """DeepLabV3+ of segmentation-models-pytorch with mmseg's auxiliary head: images -> logits [B, num_classes, H, W].

    In training mode it returns (logits, auxiliary logits), the latter from the third stage at its own resolution.
    """

    def __init__(self, network: nn.Module, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        inner = max(1, channels // 4)  # 256 of ResNet-101's 1024
        self.auxiliary = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(inner, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        height, width = images.shape[2:]
        padded = pad(images, (0, -width % 16, 0, -height % 16))
        features = self.network.encoder(padded)  # type: ignore[operator]
        maps = self.network.decoder(features)  # type: ignore[operator]
        logits = self.network.segmentation_head(maps)[:, :, :height, :width]  # type: ignore[operator]
        return (logits, self.auxiliary(features[AUXILIARY_STAGE])) if self.training else logits


def build(model: nn.Module, card: Card, recipe: Recipe, num_classes: int) -> nn.Module:
    """The recipe's segmentation model: encoder from a pre-trained network, decoder drawn from the global generator.

    Raises:
        ValueError: for a network that the decoder does not fit, or a package that is missing.
    """
    wanted = VisionTransformer if recipe.decoder == "segmenter" else ResNet
    if not isinstance(model, wanted):
        raise ValueError(
            f"decoder {recipe.decoder} needs a {wanted.__name__} of timm, not {type(model).__name__} "
            f"({card['model']['name']}): choose another run or decoder"
        )
    if isinstance(model, VisionTransformer):
        return build_segmenter(model, card, recipe, num_classes)
    return build_deeplab(model, card, recipe, num_classes)


def _without_head(model: nn.Module, head: str) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith(f"{head}.")}


def build_segmenter(model: VisionTransformer, card: Card, recipe: Recipe, num_classes: int) -> Segmenter:
    """Segmenter on the ViT of a run, whose position embedding is resampled (bicubic) to the crop of the recipe."""
    rows, columns = model.patch_embed.patch_size
    if recipe.crop % rows or recipe.crop % columns:
        raise ValueError(f"Recipe.crop {recipe.crop} must be a multiple of the patch of {rows}x{columns} pixels")
    arguments = {**card["model"]["arguments"], "drop_path_rate": recipe.drop_path, "img_size": card["image_size"]}
    encoder = timm.create_model(
        card["model"]["name"], num_classes=0, in_chans=card["in_chans"], dynamic_img_size=True, **arguments
    )
    assert isinstance(encoder, VisionTransformer)
    encoder.load_state_dict(_without_head(model, "head"))
    encoder.set_input_size(img_size=(recipe.crop, recipe.crop))
    width, heads = encoder.embed_dim, int(model.blocks[0].attn.num_heads)  # type: ignore[union-attr, arg-type]
    small = card["model"]["init"] == "small"
    return Segmenter(encoder, MaskTransformer(width, heads, num_classes, dropout=recipe.dropout, small=small))


def build_deeplab(model: ResNet, card: Card, recipe: Recipe, num_classes: int) -> DeepLab:
    """DeepLabV3+ with output stride 8 on the ResNet of a run."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ValueError("DeepLabV3+ needs segmentation-models-pytorch: pip install 'lumix[seg]'") from error
    arguments = card["model"]["arguments"]
    if arguments.get("cifar_stem"):
        raise ValueError("DeepLabV3+ needs a ResNet with the ordinary stem: train the run without cifar_stem")
    network = smp.DeepLabV3Plus(
        f"tu-{card['model']['name']}",
        encoder_weights=None,
        encoder_output_stride=8,
        decoder_channels=recipe.width,
        decoder_atrous_rates=tuple(recipe.dilation * factor for factor in (1, 2, 3)),
        decoder_aspp_dropout=recipe.dropout,
        in_channels=card["in_chans"],
        classes=num_classes,
        **arguments,
    )
    network.encoder.model.load_state_dict(_without_head(model, "fc"))
    return DeepLab(network, network.encoder.out_channels[AUXILIARY_STAGE], num_classes, recipe.dropout)
