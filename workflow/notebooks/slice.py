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
# weights themselves" in every network, and planes of different optimizers can be compared.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import slice as slices
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Planes
#
# All optimizers of a task share range, levels and colors. The upper row is the loss, with levels
# evenly spaced in log loss from the smallest loss to the loss of *chance*, that of the best
# constant prediction. Everything above is gray: there the network knows nothing. The lower row is
# the height above the checkpoint's own loss, so that basins of different depth compare. The cross
# is the checkpoint; the title gives the samples, the range and the cosine of the two directions.
#
# *How to read it.* Compare the distance at which a basin reaches gray, and its shape, not the color
# at the center.
#
# *Caveats.* Two directions out of many thousands show little of the sharp ones: random directions
# are nearly orthogonal to the leading eigenvectors of the Hessian. So a plane may look smoother
# although the largest eigenvalue is larger.

# %%
planes = slices.load(study)
for task in sorted({task for task, _ in planes}, key=list(study.tasks).index):
    figure = slices.contours(study, task, planes)
    paths = style.save(figure, figures, f"slice_{task}")

# %% [markdown]
# ## Cuts
#
# One plane is one anecdote. Along several independent random directions: the median of the loss and
# the band from the lowest to the highest, up to a little above chance (dotted).

# %%
figure = slices.cuts(study, planes)
paths = style.save(figure, figures, "cuts")

# %% [markdown]
# ## Roughness
#
# One number for both narrowness and bumps along those lines; all seeds where they were measured.

# %%
Markdown(body(slices.text(study, slices.table(study))))
