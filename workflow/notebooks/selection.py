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
# # How were the settings chosen?
#
# For every task and optimizer a grid of learning rates and weight decays is trained, and the
# setting with the best mean *validation* score over the selection seeds is taken. A grid of one
# setting leaves nothing to choose, so nothing is trained for it.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import load, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import selection
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Scores over the grid
#
# A line for each weight decay; a bar reaches over the selection seeds where there are several. The
# ring marks the choice, red where it lies at an edge of its grid: then the optimum may lie beyond,
# and the comparison is not settled. A cross marks learning rates at which a cell diverged. A "↓"
# says that lower is better.

# %%
chosen = selection.table(study)
figure = selection.grids(study, load.selections(study), chosen)
paths = style.save(figure, figures, "selection")

# %% [markdown]
# ## Choices and edges

# %%
Markdown(body(selection.text(study, chosen)))
