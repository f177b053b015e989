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
# # Are the solutions connected?
#
# If two trainings end in the same basin, the loss stays low on the straight line between their
# weights. Networks that differ only by the order of their channels are the same function but far
# apart, so the channels of one end are first brought into the order of the other (Ainsworth et al.
# 2023), over the permutations that the network's architecture leaves free.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import connectivity
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Barriers
#
# Each point is one pair of solutions. Two seeds of one optimizer are the baseline: a pair of
# optimizers says something only where its barrier lies outside the baseline's range.
#
# *How to read it.* A barrier near zero on the aligned line says "one basin, up to order of
# channels". A barrier on the line but none on the curve says that the solutions are connected, but
# not along a straight line.
#
# *Caveats.* Matching is a local search and finds a good order, not necessarily the best, so a
# barrier is an upper bound. Averaged weights have other batch-norm statistics than either end, so
# these are recomputed at every point of the path.

# %%
measured = connectivity.load(study)
figure = connectivity.barriers(study)
paths = style.save(figure, figures, "connectivity")

# %%
Markdown(body(connectivity.text(study, connectivity.table(study))))

# %% [markdown]
# ## Along the paths
#
# Mean over pairs of the same kind, with their range.

# %%
for task in measured["task"].unique():
    figure = connectivity.along(study, task, measured)
    paths = style.save(figure, figures, f"connectivity_{task}")

# %% [markdown]
# ## The plane between them
#
# Both ends and the bend of the curve span a plane, in which the loss is drawn; the bend was learned
# between aligned ends, so only the aligned plane holds the curve. Gray lies beyond the levels,
# which reach three times the loss of the worse end, and further where most of the plane is higher.

# %%
for task in measured["task"].unique():
    figure = connectivity.plane(study, task, measured)
    paths = style.save(figure, figures, f"connectivity_plane_{task}")
