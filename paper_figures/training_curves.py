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
# # Training curves of CutMix, LUMix and the control with a constant λr
#
# Mean and one standard deviation over seeds. Reads the curves in `results/<scale>/runs/`.

# %%
from pathlib import Path

import figures
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = figures.training_curves(results)
style.save(figure, "training_curves")
