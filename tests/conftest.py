"""For all tests: one thread per test process, where real image sets lie, and no GPU test without a GPU."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

REAL_DATA = Path(os.environ.get("LUMIX_DATA") or Path(__file__).resolve().parents[1] / "data")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run in parallel processes; more threads each would only fight for the same cores."""
    torch.set_num_threads(1)


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real image sets, as LUMIX_DATA; the test is skipped where they are absent."""
    if not (REAL_DATA / "cifar-100-python").is_dir():
        pytest.skip("no real image sets in LUMIX_DATA or data/")
    monkeypatch.setenv("LUMIX_DATA", str(REAL_DATA))
    return REAL_DATA


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, dict[str, Any], Path]:
    """A small net that tells digits apart, its card, and its run directory."""
    from engine import small_run

    from training.config import Data, Loss, Mix, Optim
    from training.loop import fit
    from training.run_directory import read_json
    from training.state import load_model

    directory = tmp_path_factory.mktemp("run")
    plain = {"data": Data("digits", 8, train_size=300), "mix": Mix(), "loss": Loss()}
    fit(small_run(**plain, epochs=15, optim=Optim(lr=8e-3, warmup_epochs=1), evaluate_every=15), 0, directory)
    return load_model(directory), read_json(directory / "model.json"), directory


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked gpu where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def global_state_untouched() -> Iterator[None]:
    """No test that uses this, hence no function under it, may move a global random state."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    yield
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])
