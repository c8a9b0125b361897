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
# # Accuracy when patches are dropped or shuffled (Tables 9 and 7)
#
# Reads `results/<scale>/lumix_table09_occlusion.json` and `lumix_table07_shuffling.json`.

# %%
from pathlib import Path

import robust
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = robust.occlusion_curves(results)
style.save(figure, "occlusion_curves")
