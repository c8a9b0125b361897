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
# # Masks and boxes from attention (Table 5)
#
# The best head's mask and box over the first test images. Reads `results/<scale>/lumix_table05_localisation.json`.

# %%
from pathlib import Path

import evaluated
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = evaluated.attention_maps(results)
style.save(figure, "attention_maps")
