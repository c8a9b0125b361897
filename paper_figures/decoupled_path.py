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
# # Decoupled Mixup's propositions: another path, the same end
#
# The gradient of mixed cross entropy is p - y: it regresses λ. That of the decoupled term lifts both classes
# whatever λ is, and is 0 where the pair has all the mass. Both are at their minimum at p = y, so DM(CE) has the
# minimiser of mixed cross entropy for every η. No results file is read.

# %%
import propositions
import style

style.use()

# %%
figure = propositions.propositions()
style.save(figure, "decoupled_path")
