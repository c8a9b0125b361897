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
# # Dropped and shuffled test images (Tables 9 and 7)
#
# The first test images with the draws of the evaluation. Reads its seeds and grids from
# `results/<scale>/lumix_table09_occlusion.json` and `lumix_table07_shuffling.json`.

# %%
from pathlib import Path

import robust
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = robust.robustness_sheet(results)
style.save(figure, "robustness_sheet")
