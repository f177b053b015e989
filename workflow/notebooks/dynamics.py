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
# # Along the training
#
# Weights and optimizer state were kept after some epochs. At each of these snapshots, for the loss
# that is trained and at the weights where the optimizer takes its gradients: the leading
# eigenvalues of the Hessian, the step that the optimizer would take next, what the step gains and
# what curvature takes of it, and the ranks of weights, gradients and steps.
#
# **Edge of stability.** On a quadratic loss an optimizer whose second moments are held as they are
# is a linear map of past gradients, and diverges where the largest eigenvalue of
# P^(−1/2) H P^(−1/2) passes a number that its momentum and learning rate set (Cohen et al.,
# arXiv 2207.14484). Full-batch trainings tend to rise to it and stay there.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import dynamics
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()
measured = dynamics.table(study)

# %% [markdown]
# ## Curvature, steps and ranks
#
# *How to read it.* In the third panel, a line that stays in the gray band is a training at the edge
# of stability. Dotted lines are diagnostics: optimizers that step along polar factors have no such
# threshold, and what is drawn for them holds without momentum only (spectral sharpness), or for
# part of the parameters (hollow). Where the penalty meets the gain, the next step no longer lowers
# the quadratic model.
#
# *Caveats.* A falling learning rate raises the threshold, so the ratio falls at the end of a
# schedule whatever the curvature does. Thresholds are exact for full batches; small batches keep
# trainings below. Compare optimizers at equal loss too: the first panel says where that is.

# %%
for task in dynamics.PAGE.chosen_tasks(study):
    paths = style.save(dynamics.along(study, measured, task), figures, f"dynamics_{task}")

# %% [markdown]
# ## Distance, margins, layers
#
# Of the kept weights. A margin is the logit of the right class less the largest other one. A linear
# probe is a ridge regression from a layer's outputs to the target, fitted on training samples and
# scored on test samples.
#
# *How to read it.* A layer whose probe scores as the last one does already holds what the network
# uses. A probe of a wide layer may score high at the start: random features are features.

# %%
for task in dynamics.PAGE.chosen_tasks(study):
    figure = dynamics.layers(study, measured, task)
    paths = style.save(figure, figures, f"dynamics_layers_{task}")

# %%
Markdown(body(dynamics.text(study, measured)))
