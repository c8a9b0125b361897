"""An evaluation: its key, its cache in the run directory, and the modules that carry out the protocols.

Importing this file loads no torch, so that tables can name evaluations and list at once.
"""

import hashlib
import importlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumix.train import run_directory
from lumix.train.config import Config

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lumix.train.imageset import ImageSet

# protocol -> module with drive(model, card, arguments, device) -> Outcome
PROTOCOLS: dict[str, str] = {
    "fgsm": "lumix.evaluate.robustness.fgsm",
    "mixed_accuracy": "lumix.evaluate.robustness.mixed_accuracy",
    "natural_adversarial": "lumix.evaluate.natural.adversarial",
    "occlusion": "lumix.evaluate.robustness.occlusion",
    "segmentation": "lumix.evaluate.segmentation.scoring",
    "shuffling": "lumix.evaluate.robustness.shuffling",
    "throughput": "lumix.evaluate.throughput",
    "weak_localisation": "lumix.evaluate.attention.weak_localisation",
    "weak_segmentation": "lumix.evaluate.attention.weak_segmentation",
}
VALUES = ("key", "protocol", "arguments", "checksum", "values", "n_samples", "seconds", "fingerprint", "others")


@dataclass(frozen=True)
class Evaluation(Config):
    """A protocol and everything its numbers depend on beside the evaluated weights.

    Attributes:
        protocol: one of `PROTOCOLS`.
        arguments: JSON values. One of the form {"key": run key} names a second trained model of the same seed, and
            {"key": run key, "seed": k} one of seed k for every evaluated seed. `evaluate` gets its run directory in
            `others` and hands it to the driver as {"key": ..., "directory": Path}.
    """

    protocol: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"Evaluation.protocol must be one of {', '.join(PROTOCOLS)}, not {self.protocol!r}")

    @property
    def key(self) -> str:
        """The protocol and eight hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return f"{self.protocol}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def sources(self) -> dict[str, tuple[str, int | None]]:
        """Argument -> run key and seed of each second model; seed None is the evaluated one's own."""
        return {
            name: (value["key"], value.get("seed"))
            for name, value in self.arguments.items()
            if isinstance(value, dict) and "key" in value
        }


@dataclass
class Outcome:
    """What a driver found: numbers by metric, how many samples they stand on, and arrays worth keeping."""

    values: dict[str, float]
    n_samples: int
    arrays: "dict[str, np.ndarray]" = field(default_factory=dict)


@cache
def fingerprint() -> str:
    """16 hexadecimal digits over the sources of `lumix.evaluate` and of what it reads models and data with."""
    digest = hashlib.sha256(run_directory.code_fingerprint().encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def read_evaluation(
    directory: Path, evaluation: Evaluation, others: Mapping[str, Path] | None = None, cache: Path | None = None
) -> dict[str, Any] | None:
    """The cached evaluation of the weights that the run directory holds now, or None. Arguments as of `evaluate`.

    Raises:
        RunError: for a damaged file, naming it and the remedy.
    """
    path = (cache or directory / "eval") / f"{evaluation.key}.json"
    if not path.exists():
        return None
    found = run_directory.read_json(path)
    if not isinstance(found, dict) or any(name not in found for name in VALUES):
        raise run_directory.RunError(f"{path} is no evaluation: delete it and run the same command again")
    checksums = {name: _checksum(other) for name, other in (others or {}).items()}
    if found["checksum"] != _checksum(directory) or found["others"] != checksums:
        return None
    return found


def read_arrays(cache: Path, evaluation: Evaluation) -> "dict[str, np.ndarray]":
    """The arrays that a cached evaluation kept in the folder `cache`; empty where it kept none."""
    path = cache / f"{evaluation.key}.npz"
    if not path.exists():
        return {}
    import numpy as np  # late: tables are listed without it

    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def evaluate(
    directory: Path,
    evaluation: Evaluation,
    device: "torch.device | str" = "cpu",
    others: Mapping[str, Path] | None = None,
    cache: Path | None = None,
    fresh_code: bool = False,
) -> dict[str, Any]:
    """Evaluate the model of a finished run directory, or return what is cached for these very weights.

    Args:
        directory: of a finished run.
        others: run directory of each second model that `evaluation.sources` names.
        cache: the folder that keeps <key>.json and, for arrays, <key>.npz; by default `directory`/eval.
        fresh_code: do not accept a cached result that other code of `lumix.evaluate` wrote.

    Raises:
        RunError: where there is no trained model, or a file is damaged.
        ValueError: for arguments that do not suit the model or the data, or missing files, naming the remedy.
    """
    others = dict(others or {})
    if set(others) != set(evaluation.sources):
        raise ValueError(f"{evaluation.key} needs the run directories of {sorted(evaluation.sources)}, not {others}")
    found = read_evaluation(directory, evaluation, others, cache)
    if found is not None and not (fresh_code and found["fingerprint"] != fingerprint()):
        return found
    from lumix.train.checkpoint import load_model

    model = load_model(directory, device)
    resolved = {name: {**evaluation.arguments[name], "directory": path} for name, path in others.items()}
    module = importlib.import_module(PROTOCOLS[evaluation.protocol])
    start = time.monotonic()
    outcome = module.drive(
        model, run_directory.read_json(directory / "model.json"), evaluation.arguments | resolved, device
    )
    seconds = time.monotonic() - start
    checksums = {"checksum": _checksum(directory), "others": {name: _checksum(path) for name, path in others.items()}}
    return _write(cache or directory / "eval", evaluation, outcome, {**checksums, "seconds": seconds})


def _write(folder: Path, evaluation: Evaluation, outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    """Arrays first, then the numbers, whose presence says that the evaluation is done."""
    values = {name: float(value) for name, value in outcome.values.items()}
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise ValueError(f"{folder} / {evaluation.key} gave {values[wrong[0]]} for {wrong[0]}: are the weights finite?")
    if outcome.arrays:
        import numpy as np

        arrays: dict[str, Any] = dict(outcome.arrays)
        run_directory.write_atomically(
            folder / f"{evaluation.key}.npz", lambda file: np.savez_compressed(file, **arrays)
        )
    result = {
        "key": evaluation.key,
        **evaluation.to_dict(),
        **facts,
        "fingerprint": fingerprint(),
        "n_samples": outcome.n_samples,
        "images_per_second": outcome.n_samples / max(facts["seconds"], 1e-9),
        "values": values,
    }
    run_directory.write_json(folder / f"{evaluation.key}.json", result)
    return result


def _checksum(directory: Path) -> str | None:
    """SHA-256 of the weights in a run directory, as result.json has it; None where there are none yet."""
    result = run_directory.read_result(directory)
    return None if result is None else str(result.get("checksum"))


def test_images(card: Mapping[str, Any]) -> "ImageSet":
    """The clean test set of a model held in memory, from its card; files (ImageNet) are read in batches instead.

    Raises:
        ValueError: for a set that is read from files, or whose files are missing.
    """
    from lumix.train.config import Data
    from lumix.train.data import load

    return load(Data(card["data"], card["image_size"]))[1]
