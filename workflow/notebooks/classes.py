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
# # Which classes are told apart?
#
# One score for all classes hides which of them a network knows. Here is the test accuracy of each
# class, and which class the others are taken for, at the best validation epoch of the final seeds.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import classes
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Class by class
#
# The class that the baseline knows best is on top. A class has few test samples, so a
# difference between optimizers on one class is worth less than one on the mean of all.

# %%
scores = classes.table(study)
for task in classes.PAGE.chosen_tasks(study):
    figure = classes.dots(study, task, scores)
    style.save(figure, figures, f"classes_{task}")

# %% [markdown]
# ## Taken for which?
#
# Rows are the true classes, columns what they are taken for; black is all of a row's samples. A
# dark square off the diagonal is a confusion, and the table names the most frequent ones.

# %%
counts = classes.matrices(study)
for task in classes.PAGE.chosen_tasks(study):
    figure = classes.confusion(study, task, counts)
    style.save(figure, figures, f"confusion_{task}")

# %%
Markdown(body(classes.confusions_text(study, classes.confusions(study))))

# %%
Markdown(body(classes.text(study, scores)))
