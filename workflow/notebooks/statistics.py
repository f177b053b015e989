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
# # How sure are the differences?
#
# Training is random, seeds are few, and tasks are several. So every difference has an interval, an
# exact test, and an adjustment for the number of tasks compared.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import load, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import statistics
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## What this number of seeds can show

# %%
Markdown("\n\n".join(statistics.explain(study)))

# %% [markdown]
# ## Gains with their intervals
#
# In standard deviations of a seed, so that tasks of different units share the axis. Filled markers
# have an interval on one side of zero. A true effect inside the gray band would be missed in more
# than a fifth of such studies.

# %%
figure = statistics.gains(study, load.finals(study))
paths = style.save(figure, figures, "gains")

# %% [markdown]
# ## Every comparison
#
# The unpaired test shuffles seeds between the optimizers, the paired one flips the sign of the
# differences at equal seeds (equal start and order of the data). Layers of a network are not
# independent, so ranks are tested once over all layers, by shuffling seeds.

# %%
Markdown(body(statistics.text(study, statistics.table(study))))
