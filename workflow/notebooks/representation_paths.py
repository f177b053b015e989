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
# # Are representations connected?
#
# Equivariant networks are a union of planes, one for each hidden representation. Between two
# networks of one teacher and width the loss is followed in the space of all perceptrons: along the
# straight line, along it after the hidden units of one were reordered and flipped to be as near to
# the other's as they can be, and along a Bezier curve whose bend is learned.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import representation_paths
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Barriers
#
# *How to read it.* A barrier is the largest loss on a path above the straight line between the
# losses of its ends. Pairs of one representation are the baseline: two networks that solve the task
# with the same representation are often the same up to the order and the signs of their units, and
# then the aligned line has no barrier. A curve without a barrier where the line has one says that
# the representations are apart, but nothing stands between them.

# %%
paths = style.save(
    representation_paths.barriers(study, representation_paths.load(study)),
    figures,
    "representation_paths",
)

# %%
Markdown(body(representation_paths.text(study, representation_paths.table(study))))
