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
# # Does the gain survive corrupted clouds?
#
# Every final checkpoint is evaluated on test clouds corrupted as in
# ModelNet40-C, at severities from 1 to 5; nothing is trained on them. Generated corruptions are
# those 13 of the 15 that need only points; the other two (occlusion, lidar) need the meshes.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import load, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import robustness
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Corruption by corruption
#
# Mean over severities, then mean ± sample standard deviation over seeds. Rows are sorted by their
# mean over all tasks and optimizers; the clean test accuracy is at the top.
#
# *How to read it.* What counts is whether an optimizer loses less from the clean row down, not only
# whether it starts higher.

# %%
cells = robustness.load(study)
finals = load.finals(study)
figure = robustness.corruptions(study, cells, finals)
paths = style.save(figure, figures, "robustness")

# %% [markdown]
# ## The gain at every severity
#
# Difference to the baseline in percentage points: each corruption as a thin line, their mean thick,
# with the standard error over seeds. A line that stays level says that the gain on clean data
# carries over; one that rises, that the solution is more robust besides.

# %%
figure = robustness.severity(study, cells)
paths = style.save(figure, figures, "robustness_severity")

# %%
summary = robustness.table(study)
Markdown(body(robustness.text(study, summary)))
