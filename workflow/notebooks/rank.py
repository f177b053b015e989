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
# # How spread are the singular values?
#
# Two measures of how many directions a matrix really uses, from its singular values s₁ ≥ s₂ ≥ …:
#
# - **stable rank** Σ sᵢ² / s₁²: the energy in units of the largest singular value; one dominant
#   direction pulls it to 1;
# - **effective rank** exp(H), where H is the entropy of pᵢ = sᵢ / Σ sⱼ: the number of equal
#   singular values that would be as spread.
#
# They are taken of every weight matrix and of every layer's representations (samples × channels,
# pooled over the points or nodes of a sample) at the representative checkpoint.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import rank
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## All tasks at a glance
#
# Rank under each optimizer over the rank under the baseline: a dot per layer, a bar at their
# geometric mean, a gray band for ties. Filled markers: stable rank. Hollow markers: effective rank.
#
# *How to read it.* An optimizer that evens out the singular values of each update gives *weights*
# of higher rank almost by definition; if *representations* follow, that is a finding. Neither
# separates cause from effect on the score.

# %%
layers = rank.table(study)
figure = rank.ratios(study, layers)
paths = style.save(figure, figures, "rank")

# %%
Markdown(body(rank.summary_text(study, rank.summary(study))))

# %% [markdown]
# ## Layer by layer
#
# From the input (top) to the output. The axis is logarithmic where the ranks span more than a
# decade. A rank cannot exceed the smaller side of its matrix, so layers of different width are not
# comparable with each other, only the optimizers within a layer.

# %%
for task in rank.PAGE.chosen_tasks(study):
    figure = rank.layers(study, task, layers)
    paths = style.save(figure, figures, f"rank_{task}")
