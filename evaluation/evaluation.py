"""An evaluation: the registry of protocols, its key, and its cache in the run directory."""

import hashlib
import importlib
import json
import math
import time
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training import run_directory
from training.config import Config


class Protocol(NamedTuple):
    """A module with drive(model, card, arguments, device) -> Outcome, and which values are measured on a machine;
    card is the model's model.json, with the run that trained it as "run"."""

    module: str
    measured: frozenset[str] = frozenset()


SPEEDS = ("speed", "speed_low", "speed_high", "images_per_second", "baseline_images_per_second")
MEMORY = ("memory", "peak_bytes", "baseline_peak_bytes")
PROTOCOLS = {
    "calibration": Protocol("evaluation.calibration"),
    "fgsm": Protocol("evaluation.fgsm"),
    "natural_adversarial": Protocol("evaluation.natural_adversarial"),
    "occlusion": Protocol("evaluation.occlusion"),
    "segmentation": Protocol("evaluation.segmentation"),
    "shuffling": Protocol("evaluation.shuffling"),
    "ten_crop": Protocol("evaluation.ten_crop"),
    "throughput": Protocol("evaluation.throughput", frozenset(SPEEDS + MEMORY)),
    "weak_localisation": Protocol("evaluation.weak_localisation"),
    "weak_segmentation": Protocol("evaluation.weak_segmentation"),
}


def register(name: str, module: str, measured: Iterable[str] = ()) -> None:
    """Add a protocol of another package, at its import in every process; ValueError for a name that is taken."""
    protocol = Protocol(module, frozenset(measured))
    if PROTOCOLS.setdefault(name, protocol) != protocol:
        raise ValueError(f"protocol {name!r} is {PROTOCOLS[name].module} already: choose another name")


@dataclass(frozen=True)
class Evaluation(Config):
    """A protocol and everything its numbers depend on beside the evaluated weights."""

    protocol: str  # one of `PROTOCOLS`
    # JSON values. {"key": run key} names a second trained model of the same seed, {"key": run key, "seed": k} one of
    # seed k; the driver gets its run directory as {"key": ..., "directory": Path}.
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
    """What a driver found: numbers by metric, how many samples they stand on, NumPy arrays worth keeping, and texts."""

    values: dict[str, float]
    n_samples: int
    arrays: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


@cache
def fingerprint() -> str:
    """16 hexadecimal digits over the sources of `evaluation` and of what it reads models and data with."""
    digest = hashlib.sha256(run_directory.code_fingerprint().encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def read_evaluation(
    directory: Path, evaluation: Evaluation, others: Mapping[str, Path] | None = None
) -> dict[str, Any] | None:
    """The cached evaluation of the weights that the run directory holds now, or None; RunError for a damaged file."""
    path = directory / "eval" / f"{evaluation.key}.json"
    if not path.exists():
        return None
    found = run_directory.read_json(path)
    if not isinstance(found, dict) or not {"key", "values", "n_samples", "fingerprint"} <= found.keys():
        raise run_directory.RunError(f"{path} is no evaluation: delete it and run the same command again")
    return found if found | _checksums(directory, others or {}) == found else None


def read_arrays(cache: Path, evaluation: Evaluation) -> dict[str, Any]:
    """The arrays that a cached evaluation kept in the folder `cache`; empty where it kept none."""
    path = cache / f"{evaluation.key}.npz"
    if not path.exists():
        return {}
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise run_directory.RunError(f"{path} is damaged ({error}): delete it and the .json beside it") from error


def evaluate(
    directory: Path,
    evaluation: Evaluation,
    device: Any = "cpu",
    others: Mapping[str, Path] | None = None,
    fresh_code: bool = False,
) -> dict[str, Any]:
    """Evaluate the model of a finished run directory, or return what its eval/ keeps for these very weights.

    `others` has the run directory of each second model that `evaluation.sources` names; with `fresh_code` what other
    code of `evaluation` wrote is made again.
    """
    others = dict(others or {})
    if set(others) != set(evaluation.sources):
        raise ValueError(f"{evaluation.key} needs the run directories of {sorted(evaluation.sources)}, not {others}")
    found = read_evaluation(directory, evaluation, others)
    if found is not None and not (fresh_code and found["fingerprint"] != fingerprint()):
        return found
    from training.state import load_model  # late: timm takes seconds, and tables are listed without it

    model = load_model(directory, device)
    resolved = {name: {**evaluation.arguments[name], "directory": path} for name, path in others.items()}
    card = run_directory.read_json(directory / "model.json") | {"run": trained_run(directory)}
    module = importlib.import_module(PROTOCOLS[evaluation.protocol].module)
    start = time.monotonic()
    outcome: Outcome = module.drive(model, card, evaluation.arguments | resolved, device)
    seconds = time.monotonic() - start
    path = directory / "eval" / f"{evaluation.key}.json"
    for name, value in outcome.values.items():
        if not math.isfinite(value):
            raise ValueError(f"{path} would hold {value} for {name}: are the weights finite?")
    if kept := outcome.arrays:  # before the numbers, whose presence says that the evaluation is done
        run_directory.write_atomically(path.with_suffix(".npz"), lambda file: np.savez_compressed(file, **kept))
    result = {
        "key": evaluation.key,
        "protocol": evaluation.protocol,
        "arguments": evaluation.arguments,
        **_checksums(directory, others),
        "fingerprint": fingerprint(),
        "n_samples": outcome.n_samples,
        "values": {name: float(value) for name, value in outcome.values.items()},
        "facts": outcome.facts,
        "measured": {"seconds": seconds, "images_per_second": outcome.n_samples / max(seconds, 1e-9)},
    }
    run_directory.write_json(path, result)
    return result


def trained_run(directory: Path) -> dict[str, Any]:
    """The run that a run directory is of, as `Run.to_dict` wrote it; RunError where the directory does not say so."""
    path = directory / "config.json"
    found: dict[str, Any] = run_directory.read_json(path) if path.exists() else {}
    if "run" not in found:
        raise run_directory.RunError(f"{path} does not say which run was trained: run its table again")
    return dict(found["run"])


def _checksums(directory: Path, others: Mapping[str, Path]) -> dict[str, Any]:
    """SHA-256 of the weights in each run directory, as result.json has it; None where there are none yet."""
    results = {path: run_directory.read_result(path) for path in (directory, *others.values())}
    found = {path: None if result is None else str(result.get("checksum")) for path, result in results.items()}
    return {"checksum": found[directory], "others": {name: found[path] for name, path in others.items()}}
