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
# One row per task, one marker per optimizer. The axes of the first two are logarithmic; that of the
# smallest eigenvalue is linear about zero, so that its sign shows: a negative one means that the
# checkpoint is not a minimum. The bar of an eigenvalue is the residual |Hv − λv|, within which an
# eigenvalue must lie. The bar of the trace is its 95 % interval over random probes. With several
# seeds, both are standard deviations over seeds. Hollow markers have not converged. Open black
# diamonds, where there are any, are the published figures.
#
# *Caveats.* Sharpness in the plain sense is not invariant: rescaling the weights between two layers
# of a ReLU network changes it and leaves the function alone (Dinh et al. 2017). The largest
# eigenvalue of |θ|H|θ| does not see that, but it sees the scale between a matrix and its BatchNorm;
# the analysis `sharpness` takes that out too. Sharpness also falls with the loss itself, so compare
# it together with the loss in the table.

# %%
measured = hessian.table(study)
figure = hessian.dots(study, measured)
paths = style.save(figure, figures, "hessian")

# %%
Markdown("\n".join(f"- {line}" for line in hessian.highlights(study)))

# %%
Markdown(body(hessian.text(study, measured)))
