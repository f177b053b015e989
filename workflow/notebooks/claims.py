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
# # Which claims hold?
#
# The publication (arXiv 2605.27662) makes claims on scores, curvature, slices, ranks and
# robustness. Each is asked here of every optimizer of this study against the baseline, with what
# the publication did not ask: at equal loss and cost, by sharpness that no change of parameters
# fakes, with ranks held, and between solutions.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import claims
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()
found = claims.table(study)

# %% [markdown]
# ## Verdicts at a glance
#
# *How to read it.* A check says that the data show the effect on the claimed side, a cross that
# they exclude an effect of the size that is worth claiming. A question mark says neither, and the
# table gives the smallest effect that as many seeds would have shown: a larger n may decide.
#
# *Caveats.* A verdict is about this study's networks, data and budget of training. Verdicts of one
# measurement per optimizer are always open.

# %%
figure = claims.verdicts(study, found)
paths = style.save(figure, figures, "claims")

# %%
Markdown("\n\n".join(claims.highlights(study)))

# %% [markdown]
# ## Every claim

# %%
Markdown(body(claims.text(study, found)))
