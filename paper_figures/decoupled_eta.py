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
# # η of DM(CE) on three data sets (Figure A3)
#
# Top-1 over η for each mixing method, with 95 % intervals over seeds. The paper prints no numbers; a triangle marks the
# η that its appendix B.3 sets. Reads `results/<scale>/dm_figure03_eta.json` and writes the points of every seed beside
# the picture.

# %%
from pathlib import Path

import style
import swept

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = swept.decoupled_eta(results)
style.save(figure, "decoupled_eta")
swept.points(results, *swept.FIGURE_A3).to_csv(style.FOLDER / "decoupled_eta.csv", index=False)
