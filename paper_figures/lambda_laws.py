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
# # The laws of λr, and what they do (Table 10)
#
# The expected gradient depends on the mean of λr alone, so laws of equal mean should differ by noise only.
# Reads `results/<scale>/lumix_table10_laws.json`.

# %%
from pathlib import Path

import figures
import style

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = figures.lambda_laws(results)
style.save(figure, "lambda_laws")
