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
# # Which representation does a hidden layer choose?
#
# A *student* learns the function of a *teacher*, an equivariant perceptron of the same width whose
# hidden layer carries a known permutation representation. The equivariant networks of one hidden
# representation are a linear *plane* among all perceptrons of that width, and all equivariant
# networks are the union of such planes (Xie & Smidt 2025, arXiv 2506.02269). The student is
#
# - **constrained**: on the plane of its own representation, projected after every step;
# - **relaxed**: the same for half of the steps, then released with relative noise 0.1;
# - **released**: the same without noise;
# - **penalized**: pulled back to the plane by a penalty that fades, instead of held;
# - **unprojected**: started on the plane and left alone, so that only rounding leads away from it;
# - **free**: a perceptron from the start.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import permutations
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Who solves the task
#
# Solved is a training loss below 1e-5 of the target's variance. Bars are 95 % Wilson intervals over
# seeds.
#
# *How to read it.* Where *constrained* fails and *relaxed* succeeds, the symmetry itself kept the
# network from the minimum. A matching student that fails is trapped by the sign of its weights.

# %%
networks = permutations.load(study)
table = permutations.table(study)
paths = style.save(permutations.solved(study, table), figures, "permutations_solved")

# %%
Markdown(body(permutations.text(study, table)))

# %% [markdown]
# ## Final losses

# %%
paths = style.save(permutations.losses(study, networks), figures, "permutations_loss")

# %% [markdown]
# ## Where relaxed networks end
#
# For every element of the group the best permutation of hidden units is found by linear assignment;
# where these permutations multiply as the group does, their orbits and stabilizers name the
# representation. It is looked for in all networks and shown for those that solve the task.

# %%
ends = permutations.ends(study)
paths = style.save(permutations.arrivals(study, ends), figures, "permutations_ends")

# %%
Markdown(body(permutations.ends_text(study, ends)))

# %% [markdown]
# ## Does the optimizer choose the representation?
#
# Over all networks that could leave their plane.

# %%
Markdown(body(permutations.choice_text(study, permutations.choice(study))))

# %% [markdown]
# ## Escape after the release
#
# Networks that had not solved the task when the projection ended.

# %%
Markdown(body(permutations.escape_text(study, permutations.escape(study))))

# %% [markdown]
# ## What holds constrained networks
#
# The Hessian of the loss within the plane and across it. A *saddle across* is a minimum among the
# equivariant networks of that representation, and none among all perceptrons: the symmetry made it.

# %%
Markdown(body(permutations.saddles_text(study, permutations.saddles(study))))
