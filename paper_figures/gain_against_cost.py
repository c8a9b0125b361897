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
# # Gain against cost (Table 6)
#
# What each mixing method gains over Mixup alone, against the time of its training step; hollow marks are the paper's.
# Reads `lumix_table06_rivals.json` of `results/<scale>/` and `measured/<scale>/`.

# %%
from pathlib import Path

import rivals
import style

from report.load import read_results

style.use()
results = read_results(Path(".."), measured=True)  # of the scale in params.yaml

# %%
figure = rivals.gain_against_cost(results)
style.save(figure, "gain_against_cost")
