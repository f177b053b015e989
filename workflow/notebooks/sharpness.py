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
# # Does sharpness survive reparametrization?
#
# The eigenvalues of the Hessian depend on how a function is written in parameters: scaling a
# matrix against the BatchNorm behind it, or a neuron's input against its output, changes them and
# not the function. So a ratio of eigenvalues of two solutions may say something about their norms
# only. Measured here at every final seed, beside the usual kinds:
#
# - **folded**: BatchNorm in eval mode is written into the weights ahead of it, which takes its
#   scales and shifts out; a constant added to all logits and shifts of a residual stream too;
# - **adaptive** λ and trace of |θ|H|θ|, and the **log-Hessian** (with respect to log |θ|):
#   unchanged by every rescaling of a folded network;
# - **Fisher-Rao** θᵀGθ with the Gauss-Newton matrix G: unchanged by every linear symmetry;
# - **filter-wise** (row norms), relative flatness by layer, and G and H − G apart: for comparison;
# - **orthogonalized steps**: the largest ⟨D, HD⟩ over steps D whose matrices have the spectral norm
#   that an orthogonalizing optimizer's steps have, or (relative) that of the weights themselves.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import sharpness
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Against the baseline
#
# Ratio of geometric means over seeds, with its 95 % interval. Filled markers: folded. Hollow: the
# network as it is. No interval: one seed.
#
# *How to read it.* An optimizer's solutions are sharper in a sense that the function fixes where
# adaptive, log-Hessian and Fisher-Rao agree and their intervals leave 1 out. Where only hollow
# markers do, the difference lies in how the function is parametrized.
#
# *Caveats.* All depend on the loss that was reached. Orthogonalized steps give lower bounds.
# EGNN's first layer has directions (columns that see a constant) that folding leaves in:
# there only Fisher-Rao is unchanged by all.

# %%
measured = sharpness.table(study)
figure = sharpness.ratios(study, measured)
paths = style.save(figure, figures, "sharpness")

# %%
Markdown(body(sharpness.text(study, measured)))
