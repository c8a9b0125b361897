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
# # The parameters of Decoupled Mixup's losses (Figure A2)
#
# Top-1 over η of DM(CE), and over ξ and t of DM(BCE), for each mixing method, with 95 % intervals over seeds. The
# paper prints no numbers; a triangle marks where it finds a method best. Reads `results/<scale>/dm_figure02_*.json` and
# writes the points of every seed beside the picture.

# %%
from pathlib import Path

import style
import swept

from report.load import read_results

style.use()
results = read_results(Path(".."))  # of the scale in params.yaml

# %%
figure = swept.decoupled_parameters(results)
style.save(figure, "decoupled_parameters")
swept.points(results, *swept.FIGURE_A2).to_csv(style.FOLDER / "decoupled_parameters.csv", index=False)
