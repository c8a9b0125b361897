# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Accuracy on mixed images while a network trains (Figure A1 of Decoupled Mixup)
#
# Test images mixed by the method itself after every epoch: does the network see one class of a mixture, or both? Reads
# `results/<scale>/dm_figure01_mixed.json`; the paper prints no numbers.

# %%
from pathlib import Path

import mixed
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = mixed.decoupled_mixed(results)
style.save(figure, "decoupled_mixed")
