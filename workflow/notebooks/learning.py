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
# the highest. A diverged cell is drawn up to where it diverged.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import budget, cost, load, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import learning
from equiscape.report.text import body

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
# two is not a generalization gap alone, and validation may lie below training.

# %%
figure = learning.loss(study, histories)
paths = style.save(figure, figures, "learning_loss")

# %% [markdown]
# ## At equal cost
#
# Epochs are not what one pays for. Here the score that one would have kept, the test score of the
# best validation epoch so far, is plotted against wall time, and against the multiplications and
# additions of the training's matrix products where `training.recorders` lists `products`.
#
# *How to read it.* Compare heights at one place of the horizontal axis. Wall time holds for this
# machine and its load only. A curve that ends earlier is a cheaper training, not a worse one; cut
# off before its end, a training has not run its schedule.

# %%
reached = budget.spent(study, histories, finals)
figure = budget.curves(study, reached, finals)
paths = style.save(figure, figures, "learning_cost")

# %%
Markdown(body(budget.text(study, budget.table(study))))

# %% [markdown]
# ## Time and memory of a cell

# %%
Markdown(body(cost.text(study, cost.table(study))))
