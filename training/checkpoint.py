"""Checkpoints of a run: saved atomically, loaded without executing code, exported as safetensors with a card."""

import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from training.config import Model
from training.model import build_model
from training.run_directory import RunError, read_json, write_atomically, write_json


def save_checkpoint(directory: Path, state: dict[str, Any], name: str = "checkpoint.pt") -> None:
    """Replace the file of that name by `state`: tensors, numbers, strings, and lists and dicts of them."""
    write_atomically(directory / name, lambda file: torch.save(state, file))


def load_checkpoint(directory: Path, key: str, seed: int) -> dict[str, Any] | None:
    """The last checkpoint of a run, on the CPU; None if there is none.

    Raises:
        RunError: for a damaged file or one of another run or seed, naming it and the remedy.
    """
    path = directory / "checkpoint.pt"
    state = read_checkpoint(path, "key", "seed")
    if state is not None and (state["key"], state["seed"]) != (key, seed):
        raise RunError(
            f"{path} belongs to run {state['key']} seed {state['seed']}, not to {key} seed {seed}: move it away or "
            f"choose another directory"
        )
    return state


def read_checkpoint(path: Path, *names: str) -> dict[str, Any] | None:
    """The state in a file, on the CPU; None if there is none.

    Raises:
        RunError: for a damaged file, or one without an entry of these names, naming it and the remedy.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for name in names:
            state[name]
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{path} cannot be read ({reason}): delete it and run the same command to train this run from the start"
        ) from error
    return state


def export_model(directory: Path, network: nn.Module, card: dict[str, Any]) -> None:
    """Write model.safetensors and its card model.json, from which `load_model` rebuilds the network."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    content = safetensors.torch.save(weights)  # nothing but the weights, so that equal ones have equal checksums
    write_atomically(directory / "model.safetensors", lambda file: file.write(content))
    write_json(directory / "model.json", card)


def load_model(directory: Path, device: torch.device | str = "cpu") -> nn.Module:
    """The trained network of a finished run, in evaluation mode.

    Raises:
        RunError: where there is none, or its files are damaged.
    """
    if not (directory / "model.safetensors").exists() or not (directory / "model.json").exists():
        raise RunError(f"{directory} holds no trained model: run its table first")
    card = read_json(directory / "model.json")
    network = build_model(
        Model.from_dict(card["model"]), card["num_classes"], card["in_chans"], card["image_size"], seed=0
    )
    try:
        network.load_state_dict(safetensors.torch.load_file(directory / "model.safetensors"))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise RunError(f"{directory / 'model.safetensors'} is damaged or of another model ({error})") from error
    return network.to(device).eval()
