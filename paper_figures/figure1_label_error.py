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
# # Figure 1, made quantitative: how wrong is the label of a mixed image?
#
# CutMix weighs the pasted object by the pasted area, λ0; LUMix mixes in a random draw, λr, and the network's own
# opinion, λs. On the shapes set the truth is known from exact masks. A small network is trained here for the λs;
# no results file is read.

# %%
import label_error
import style

style.use()

# %%
figure = label_error.label_error()
style.save(figure, "figure1_label_error")
