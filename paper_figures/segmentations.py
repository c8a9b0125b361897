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
# # Segmentations beside their truth (Table 4)
#
# The first test scenes of seed 0. Reads `results/<scale>/lumix_table04_segmentation.json`.

# %%
from pathlib import Path

import segmented
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = segmented.segmentations(results)
style.save(figure, "segmentations")
