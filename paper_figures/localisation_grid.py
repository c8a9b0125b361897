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
# # Boxes from attention under every declared setting (Table 5)
#
# What the paper leaves open about its boxes, tried in full. Reads `results/<scale>/lumix_table05_localisation.json`.

# %%
from pathlib import Path

import evaluated
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = evaluated.localisation_grid(results)
style.save(figure, "localisation_grid")
