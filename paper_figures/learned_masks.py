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
# # What learned masks show, beside CutMix's, Puzzle-Mix's and the true objects
#
# AutoMix and SAMix are trained here on scenes whose objects have exact masks. How much of the two objects is to be
# seen in a mixture of label weight 1/2? No results file is read.

# %%
import masks
import style

style.use()

# %%
figure = masks.learned_masks()
style.save(figure, "learned_masks")
