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
# # The loss around the solutions
#
# The training loss on a plane through the representative checkpoint, along two random directions. A
# direction is Gaussian, with every row of a weight matrix rescaled to the norm of that row of the
# weights; biases and norm parameters stay (Li et al. 2018). So a step of 1 means "as large as the
# weights themselves" in every network, and planes of different optimizers can be laid side by side.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import slice as slices

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Planes
#
# All optimizers of a task share range, contour levels and colour bar; the levels are geometric
# where the losses span more than a decade, and end at the 98th percentile. The cross is the
# checkpoint, with its loss in the title.
#
# *How to read it.* Wide, evenly spaced rings mean a loss that grows slowly and smoothly. Compare
# shapes and the distance to a given level, not the colour at the center.
#
# *Caveats.* Two directions out of many thousands show little of the sharp ones: random directions
# are nearly orthogonal to the leading eigenvectors of the Hessian. So a plane may look smoother
# although the largest eigenvalue is larger, which is what the publication found for Muon.

# %%
planes = slices.load(study)
for task in study.tasks:
    figure = slices.contours(study, task, planes)
    paths = style.save(figure, figures, f"slice_{task}")

# %% [markdown]
# ## Cuts
#
# The same files, along each direction alone.

# %%
figure = slices.cuts(study, planes)
paths = style.save(figure, figures, "cuts")
