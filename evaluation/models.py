"""Models that an evaluation reads beside the one it evaluates: of another run, or with public weights."""

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from evaluation.images import Card, Device
from training.data.files import data_root
from training.run_directory import read_json
from training.state import load_model


def second_model(source: Mapping[str, Any], card: Card, device: Device) -> nn.Module:
    """The trained model of source["directory"]; ValueError where it knows other images than the model of `card`."""
    other = read_json(source["directory"] / "model.json")
    if (other["data"], other["image_size"]) != (card["data"], card["image_size"]):
        raise ValueError(
            f"{other['key']} is trained on {other['data']} at {other['image_size']} pixels, not on {card['data']} at "
            f"{card['image_size']}: choose another second model"
        )
    return load_model(source["directory"], device)


def public_model(name: str) -> nn.Module:
    """A headless timm model with its public weights, from `weights/<name>.pth` of the data root or else timm's hub."""
    path = data_root() / "weights" / f"{name}.pth"
    overlay = {"file": str(path)} if path.exists() else None
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's client raises nearly anything without a network
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the weights of {name} are neither in {path} nor to be had from timm's hub ({reason}): put the official "
            f"file there under that name"
        ) from error
