# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Learning curves
#
# The final cells, epoch by epoch: lines are means over seeds, bands reach from the lowest seed to
# the highest. A cell that diverged is drawn as far as it came.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from equiscape.report import load, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import learning

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Validation score
#
# *How to read it.* An optimizer that is ahead early and level at the end is faster, not better; one
# that is ahead at the end found another solution, if both curves are flat by then. Both optimizers
# follow the same schedule over the same epochs, with the learning rate that was best for each.

# %%
histories = load.histories(study)
finals = load.finals(study)
figure = learning.score(study, histories, finals)
paths = style.save(figure, figures, "learning_score")

# %% [markdown]
# ## Loss
#
# Training loss as it was minimized (with augmentation, dropout and label smoothing, if the task has
# them) is solid; validation loss, without any of them, is dashed. So the gap between the
# two is not a generalisation gap alone, and validation may lie below training.

# %%
figure = learning.loss(study, histories)
paths = style.save(figure, figures, "learning_loss")
