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
# # How many directions are sharp?
#
# The leading eigenvalues of the Hessian of the training loss, and how all of them are spread. A
# slow decay means that the largest one is not an outlier on its own.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import curvature, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import spectrum
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Leading eigenvalues
#
# The bar is the interval that holds an eigenvalue. A hollow marker has not
# converged: its interval is wide against its size, and its sign may be open.

# %%
figure = spectrum.spectrum(study, curvature.load(study))
paths = style.save(figure, figures, "spectrum")

# %%
Markdown(body(spectrum.text(study, spectrum.table(study))))

# %% [markdown]
# ## The whole spectrum
#
# How many eigenvalues there are at each size, from random probes (stochastic Lanczos quadrature).
# The band is two standard errors over the probes; the few leading eigenvalues that converged are
# known exactly and have no band. Every eigenvalue is drawn as a narrow bump whose width is a
# hundredth of the spectrum's, so the peak at zero is no wider than that.

# %%
figure = spectrum.density(study, spectrum.densities(study))
paths = style.save(figure, figures, "spectrum_density")
