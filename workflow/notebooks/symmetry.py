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
# # What parameter symmetry forces
#
# A network's parameters can be changed in many ways that leave its function as it is: scaling what
# a channel receives against what it sends on, shifting all logits, permuting channels. Where the
# loss is unchanged by the flow of a vector field X, gradient and Hessian obey ⟨g, X⟩ = 0 and
# HX = −(DX)ᵀg exactly, at every point of a training (Yang & Ziyin, arXiv 2512.21447).

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import symmetry
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Identities
#
# One random combination of every family, at the cost of one Hessian product. Residuals are relative
# to the terms that cancel.
#
# *How to read it.* A residual at the precision of the arithmetic says that the declaration is right
# and that gradient and products are. A large one would be a fault, not a finding.

# %%
measured = symmetry.load(study)
identities = symmetry.table(study)
figure = symmetry.residuals(study, identities)
paths = style.save(figure, figures, "symmetry")

# %%
Markdown(body(symmetry.text(study, identities)))

# %% [markdown]
# ## Balance
#
# For a scaling: the squared norm of what it scales up minus that of what it scales down, over their
# sum. Gradient flow conserves the difference; weight decay drives it to zero.
#
# *How to read it.* Optimizers that end at different balances ended at different members of a family
# of equal functions, so any measure that sees the scale of parameters will tell them apart.

# %%
figure = symmetry.balances(study, symmetry.balance(study))
paths = style.save(figure, figures, "symmetry_balance")

# %% [markdown]
# ## Overlap with the leading eigenvectors
#
# The gradient is orthogonal to every generator; the Hessian's eigenvectors need not be, away from
# a minimum.

# %%
figure = symmetry.overlaps(study, measured)
paths = style.save(figure, figures, "symmetry_overlap")
