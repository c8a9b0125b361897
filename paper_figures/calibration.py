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
# # Confidence on natural adversarial images (Table 8)
#
# Reliability diagram and response-rate-accuracy curve. Reads `results/<scale>/lumix_table08_natural.json`.

# %%
from pathlib import Path

import evaluated
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = evaluated.calibration(results)
style.save(figure, "calibration")
