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
# # Gain of LUMix per model (Table 1)
#
# Our difference of LUMix to CutMix with its 95 % interval, paired by seed, beside the paper's difference on ImageNet.
# Reads `results/<scale>/lumix_table01_models.json`.

# %%
from pathlib import Path

import figures
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = figures.gain_per_model(results)
style.save(figure, "gain_per_model")
