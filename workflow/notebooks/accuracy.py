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
# # Does the optimizer change the test score?
#
# For every task and optimizer a grid of learning rates and weight decays is trained and the setting
# with the best *validation* score is taken. That setting is then retrained with several seeds:
# the *final* cells, whose *test* scores are compared here.

# %% tags=["parameters"]
manifest = "results/report.json"  # what the study consists of and where its products are
figures = "results/figures"  # where the figures go

# %%
from IPython.display import Markdown

from equiscape.report import load, more_metrics, style
from equiscape.report.manifest import Manifest
from equiscape.report.pages import accuracy
from equiscape.report.text import body

study = Manifest.read(manifest)
style.use()

# %% [markdown]
# ## Every seed
#
# Pale markers are seeds, at the epoch with the best validation score; the bar beside them is mean ±
# sample standard deviation. A "↓" at an axis means that lower is better. A cross at the bottom
# marks an optimizer with a diverged seed: such a seed has no score and is not in the mean. Open
# diamonds, where there are any, are the published figures; they appear only for the data set that
# was published.
#
# *How to read it.* A gain is worth talking about when its interval, in the table below, is on one
# side of zero. Overlapping bars mean "not told apart", not "equal": with so few seeds the bars
# themselves are uncertain; the notebook on statistics says by how much.

# %%
finals = load.finals(study)
scores = accuracy.table(study)
figure = accuracy.scores(study, finals, scores)
paths = style.save(figure, figures, "accuracy")

# %% [markdown]
# ## Three ways to report the same runs
#
# Which epoch counts is a choice. *Best validation epoch* never looks at the test set.
# *Best test epoch* does, and flatters every optimizer, noisier ones more. The publication
# reports a "best checkpoint" without saying which. Gains are positive where an optimizer is better
# than the baseline, whatever the direction of the metric.

# %%
Markdown(body(accuracy.text(study, scores)))

# %% [markdown]
# ## More metrics

# %%
Markdown(body(more_metrics.text(study, more_metrics.table(study))))
