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
# # Does accuracy follow the spectrum?
#
# That ranks and accuracy go together does not show that one causes the other: each arm here
# changes one thing, and the question is whether accuracy moves with it.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import interventions
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## What may be said

# %%
Markdown(body(interventions.claims_text(study, interventions.claims(study))))

# %% [markdown]
# ## Dose and response
#
# Small points are seeds of an arm; large marks are means with 95 % t intervals over seeds.
#
# *How to read it.* A cloud along a line is a correlation. The powers p of the updates'
# spectrum are the dose: the step keeps its length and its singular vectors, and only its
# spectrum is flattened (0) or inverted (below 0). Arms held to ranks have a
# placebo, held to those of its own kind.

# %%
cells = interventions.points(study)
figure = interventions.dose_response(study, cells)
paths = style.save(figure, figures, "interventions")

# %%
figure = interventions.dose_response(study, cells, "representation_rank")
paths = style.save(figure, figures, "interventions_representations")

# %%
figure = interventions.dose_response(study, cells, "s_m")
paths = style.save(figure, figures, "interventions_s_m")

# %% [markdown]
# ## All arms
#
# At equal epochs one arm may simply be further along than another; the score at equal training
# loss corrects for that.

# %%
Markdown(body(interventions.text(study, interventions.table(study))))

# %% [markdown]
# ## Truncated after training
#
# The representative network with only the largest singular values of every hidden matrix kept. It
# was not trained with them, so this shows how much of its spectrum it uses, not what caused what.

# %%
figure = interventions.truncation(study)
paths = style.save(figure, figures, "interventions_truncation")
