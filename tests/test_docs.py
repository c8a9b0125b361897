"""What the documentation says is run: every python block, every link, every command that it names."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import lumix
from experiments.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "method-card.md", ROOT / "docs" / "faq.md", ROOT / "docs" / "recipes.md"]


def blocks(page, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


PYTHON = [pytest.param(block, id=f"{p.stem}-{i}") for p in PAGES for i, block in enumerate(blocks(p))]


def context():
    """The names that the pages take for granted in a training script."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    model[1].weight.data = 0.1 * torch.randn(10, 3 * 8 * 8, generator=generator)
    images, labels = torch.rand(4, 6, 3, 8, 8, generator=generator), torch.randint(10, (4, 6), generator=generator)
    pairs = torch.utils.data.TensorDataset(images.flatten(0, 1), labels.flatten())
    return {
        "model": model,
        "loader": list(zip(images, labels, strict=True)),
        "dataset": pairs,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "num_classes": 10,
        "rank": 0,
    }


@pytest.mark.parametrize("block", PYTHON)
def test_python_blocks_run(block):
    for package in ("pytorch_lightning", "accelerate", "transformers", "timm", "torchvision"):
        if re.search(rf"^(from|import) {package}\b", block, flags=re.MULTILINE):
            pytest.importorskip(package, reason="needs pip install .[integrations]")
    names = context()
    before = names["model"][1].weight.detach().clone()
    exec(compile(block, "<documentation>", "exec"), names)
    if "loss" in names:
        assert names["loss"].isfinite()
        assert names["loss"].ndim == 0
    if "optimizer.step" in block and "AutoMix" not in block:  # which has a network of timm
        assert not torch.equal(names["model"][1].weight, before)


def test_seven_lines_put_lumix_into_a_training_loop_and_it_learns():
    """The README's promise: at most seven lines, in which LUMix is really on."""
    snippet = blocks(ROOT / "README.md")[0]
    assert len(snippet.strip().splitlines()) <= 7
    names = context()
    losses = []
    for _ in range(60):
        exec(compile(snippet, "<README>", "exec"), names)
        with torch.no_grad():
            images, labels = (torch.cat(parts) for parts in zip(*names["loader"], strict=True))
            losses.append(torch.nn.functional.cross_entropy(names["model"](images), labels).item())
    assert losses[-1] < 0.7 * losses[0]
    rule = names["loss_fn"].rule
    assert isinstance(rule, lumix.LUMixRule)
    assert rule.r_r > 0
    assert [term.name for term in names["loss_fn"].terms] == ["cross_entropy", "regulariser"]


OTHERS = [ROOT / "CHANGELOG.md", *(ROOT / "docs" / name for name in ("combinations.md", "deviations.md", "slurm.md"))]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda p: p.name)
def test_lines_fit_and_links_lead_somewhere(page):
    text = page.read_text()
    assert page not in PAGES or max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 130
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for name in re.findall(r"execute.py (\w+)", text):
        assert (ROOT / "paper_figures" / f"{name}.ipynb").exists()


def test_register_numbers_that_are_cited_exist():
    text = (ROOT / "docs" / "deviations.md").read_text()
    register = set(re.findall(r"^\| ([ID]-\d+[a-z]?) ", text, flags=re.MULTILINE))
    assert len(register) > 50
    sources = [*(ROOT / "docs").glob("*.md"), *(ROOT / "lumix").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    for source in sources:
        cited = set(re.findall(r"\b[ID]-\d+[a-z]?\b", source.read_text()))
        assert cited <= register, f"{source.name} cites {cited - register}"


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"\bmake ([a-z]+)\b(?=[`\s]*(?:`|#|$))", page.read_text(), flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_experiment_commands_that_are_shown_are_accepted(monkeypatch):
    """With --dry-run where a command would train."""
    shown = {
        line for page in PAGES for b in blocks(page, "bash") for line in b.splitlines() if "-m experiments" in line
    }
    assert len(shown) >= 4
    monkeypatch.chdir(ROOT)
    for line in sorted(shown):
        arguments = line.split("#")[0].split()[3:] + (["--dry-run"] if " run " in line else [])
        assert main(arguments) == 0, line


def test_versions_agree_and_the_citation_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lumix.__version__
    assert f'version = "{lumix.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {lumix.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    identifiers = [reference["identifiers"][0]["value"] for reference in citation["references"]]
    assert identifiers == ["arXiv:2211.15846", "arXiv:2203.10761"]
