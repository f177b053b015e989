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
# # Which of the optimizer's own settings matter?
#
# Optimizers of one class that differ in their settings, each with the learning rate and weight
# decay that were best for it on validation data. One of them is the default; every other changes
# one setting, and stands in that setting's column (one that changes several says so).

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import settings
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Score, ranks and curvature against each setting
#
# *How to read it.* A column is a setting: numbers stand at their values, categories side by side.
# Small points are seeds, the larger marker their mean with its 95 % interval. The default is
# orange, and its mean is the dashed line: what lies within its reach is no change.
#
# *Caveats.* Stable ranks are medians over layers. Curvature depends on the loss that was reached
# and on how the function is parametrized. With few seeds, a setting whose interval crosses the
# line may still matter.

# %%
measured = settings.points(study)
for task in settings.PAGE.chosen_tasks(study):
    figure = settings.against_settings(study, task, measured)
    paths = style.save(figure, figures, f"settings_{task}")

# %% [markdown]
# ## In numbers

# %%
Markdown(body(settings.text(study, settings.table(study))))
