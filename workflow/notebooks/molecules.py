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
# # Molecules and graphs
#
# Test scores of the final cells at the best validation epoch, for tasks whose scores differ in unit
# and direction: mean absolute errors in the units of the field (lower is better) and average
# precision (higher is better).

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import molecules
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Relative gain
#
# Gain over the baseline in percent of the baseline's score, positive where better, with its 95 %
# interval (Welch's t over seeds).

# %%
scores = molecules.table(study)
figure = molecules.gains(study, scores)
paths = style.save(figure, figures, "molecules")

# %%
Markdown(body(molecules.text(study, scores)))
