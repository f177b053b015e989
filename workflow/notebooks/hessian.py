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
# # How sharp are the solutions?
#
# The Hessian of the training loss at the *representative*: of the final checkpoints, the one whose
# score is nearest the mean. It is never formed; it acts on vectors, on a fixed subset of training
# data without augmentation, with BatchNorm in eval mode, no dropout and no label smoothing.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import hessian
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Largest eigenvalue, trace, smallest eigenvalue
#
# The axes are logarithmic. Hatched bars stand for negative values, drawn by their size: a negative
# eigenvalue means that the checkpoint is not a minimum. The error bar of an eigenvalue is the
# residual |Hv − λv|, within which an eigenvalue is sure to lie; that of the trace is the standard
# error over random probes. Open diamonds, where there are any, are the published figures.
#
# *How to read it.* The published finding is that Muon's solutions are both better and sharper.
#
# *Caveats.* Sharpness in the plain sense is not invariant: rescaling the weights between two layers
# of a ReLU network changes it and leaves the function alone (Dinh et al. 2017). The largest
# eigenvalue of |θ|H|θ| does not see that, but it sees the scale between a matrix and its BatchNorm;
# the analysis `sharpness` takes that out too. Sharpness also falls with the loss itself, so compare
# it together with the loss in the table. And it is measured at one
# checkpoint: an error bar here says nothing about other seeds.

# %%
measured = hessian.table(study)
figure = hessian.bars(study, measured)
paths = style.save(figure, figures, "hessian")

# %%
Markdown(body(hessian.text(study, measured)))

# %% [markdown]
# ## Leading eigenvalues
#
# The largest eigenvalues in descending order, with their residuals. In classification about as many
# of them stand apart from the bulk as there are classes; a slow decay means that the largest one is
# not an outlier on its own.

# %%
figure = hessian.spectrum(study, hessian.load(study))
paths = style.save(figure, figures, "spectrum")
