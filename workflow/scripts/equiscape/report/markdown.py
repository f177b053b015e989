"""The tables as Markdown and as plain text: what a person reads first.

Every table opens by saying what its figures are, so that it can be quoted on its own.
"""

from collections.abc import Iterable

import pandas as pd

from equiscape.report import load, titles
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import DASH, percent, plus_minus, ratio, signed, significant

SOURCE = "arXiv 2605.27662"
STAND_IN = (
    f"Published figures ({SOURCE}) stand only beside results on the publication's own data set."
)


def accuracy(manifest: Manifest, frame: pd.DataFrame) -> str:
    """``tables.accuracy`` as Markdown, the three protocols side by side."""
    wide = _protocols(manifest, frame)
    published = wide["published"].ne(DASH).any()
    columns = {
        "task": "task",
        "dataset": "data",
        "optimizer": "optimizer",
        "setting": "lr, wd",
        "metric": "metric",
        "seeds": "seeds",
        **titles.PROTOCOLS,
        "gain": "gain",
    }
    if published:
        columns |= {"published": "published", "published_gain": "published gain"}
    base = titles.optimizer_title(manifest.baseline)
    text = [
        "# Test scores",
        f"Mean ± sample standard deviation over final seeds; gain over {base} at the best "
        "validation epoch, positive where better (percentage points for accuracy).",
        "*Best validation epoch* is the honest protocol. *Best test epoch* chooses on the test "
        "set, so it flatters; it is here because the publication does not say which one its "
        '"best checkpoint" means.',
        _markdown(wide, columns),
        *_diverged(frame[frame["protocol"] == "best_validation"]),
        *_elsewhere(manifest, "accuracy", frame),
    ]
    return _join(text)


def hessian(manifest: Manifest, frame: pd.DataFrame) -> str:
    """``tables.hessian`` as Markdown."""
    rows = []
    for _, row in frame.iterrows():
        published = row["published_largest"] == row["published_largest"]
        rows.append(
            {
                "task": _task(manifest, row),
                "data": titles.dataset_title(row["dataset"]),
                "optimizer": titles.optimizer_title(row["optimizer"]),
                "loss": significant(row["loss"], 3),
                "largest λ (residual)": _with_residual(row, "largest"),
                "smallest λ (residual)": _with_residual(row, "smallest"),
                "ratio of λ": _ratio(manifest, row, "largest_ratio"),
                "trace ± s.e.": plus_minus(row["trace"], row["trace_se"]),
                "ratio of traces": _ratio(manifest, row, "trace_ratio"),
                "largest of ∣θ∣H∣θ∣": significant(row["adaptive_largest"]),
                "published λ; trace": f"{row['published_largest']:.2f}; "
                f"{row['published_trace']:.2f}"
                if published
                else DASH,
                "published ratios": f"{ratio(row['published_largest_ratio'])}; "
                f"{ratio(row['published_trace_ratio'])}"
                if published and row["optimizer"] != manifest.baseline
                else DASH,
            }
        )
    table = pd.DataFrame(rows)
    table = table[[c for c in table if not _optional(c) or table[c].ne(DASH).any()]]
    samples = sorted({f"{n} samples of {s}" for n, s in zip(frame["samples"], frame["split"])})
    base = titles.optimizer_title(manifest.baseline)
    text = [
        "# Hessian of the training loss at the representative checkpoint",
        f"Measured on {'; '.join(samples)}; BatchNorm in eval mode, no dropout, no label "
        f"smoothing. Ratios are to {base}. An eigenvalue of the measured Hessian lies within the "
        "residual of the one given; the trace carries its standard error.",
        _markdown(table, {c: c for c in table}),
    ]
    if not frame["converged"].all():
        names = [_pair(row) for _, row in frame[~frame["converged"]].iterrows()]
        text.append(f"Not converged to the tolerance: {', '.join(names)}; see the residuals.")
    return _join([*text, *_elsewhere(manifest, "hessian", frame)])


def rank(manifest: Manifest, frame: pd.DataFrame) -> str:
    """``tables.rank`` as Markdown: for every task and kind, the layers against the optimizers."""
    text = [
        "# Ranks, layer by layer",
        "Stable rank Σs²/s₁² and effective rank exp(entropy of s/Σs) of the singular values s of "
        "weight matrices and of pooled representations; each cell gives *stable / effective*.",
    ]
    kinds = {"weight": "weights", "representation": "representations"}
    for (_name, kind), group in frame.groupby(["task", "kind"], sort=False):
        text.append(f"## {_task(manifest, group.iloc[0])}: {kinds.get(kind, kind)}")
        rows = []
        for layer, cells in group.groupby("layer", sort=False):
            first = cells.iloc[0]
            row = {"layer": f"`{layer}`", "size": f"{first['rows']} × {first['columns']}"}
            for _, cell in cells.iterrows():
                row[titles.optimizer_title(cell["optimizer"])] = (
                    f"{significant(cell['stable_rank'], 3)} / "
                    f"{significant(cell['effective_rank'], 3)}"
                )
            rows.append(row)
        table = pd.DataFrame(rows).fillna(DASH)
        text.append(_markdown(table, {c: c for c in table}))
    return _join(text)


def rank_summary(manifest: Manifest, frame: pd.DataFrame) -> str:
    """``tables.rank_summary`` as Markdown."""
    rows = [
        {
            "task": _task(manifest, row),
            "optimizer": titles.optimizer_title(row["optimizer"]),
            "matrices": f"{row['kind']}s",
            "rank": row["measure"].removesuffix("_rank"),
            "layers higher": f"{row['higher']} of {row['layers']}",
            "median ratio": ratio(row["median_ratio"]),
            "ratio at the last layer": ratio(row["last_ratio"]),
        }
        for _, row in frame.iterrows()
    ]
    base = titles.optimizer_title(manifest.baseline)
    heading = "# Ranks, in how many layers they are higher"
    if not rows:
        return _join([heading, "The study has one optimizer, so there is nothing to compare."])
    table = pd.DataFrame(rows)
    return _join([heading, f"Against {base}.", _markdown(table, {c: c for c in table})])


def robustness(manifest: Manifest, frame: pd.DataFrame) -> str:
    """``tables.robustness`` as Markdown."""
    rows = [
        {
            "task": _task(manifest, row),
            "data": f"{titles.dataset_title(row['dataset'])}, {row['arrays']} corruptions",
            "optimizer": titles.optimizer_title(row["optimizer"]),
            "corruptions × severities": f"{row['corruptions']} × {row['severities']}",
            "seeds": row["seeds"],
            "corrupted accuracy, %": plus_minus(row["mean"], row["std"], "%"),
            "gain": _gain(manifest, row, "%"),
            "published": plus_minus(row["published_mean"], row["published_std"], "%"),
            "published gain": _gain(manifest, row, "%", "published_gain"),
        }
        for _, row in frame.iterrows()
    ]
    table = pd.DataFrame(rows)
    if not table["published"].ne(DASH).any():
        table = table.drop(columns=["published", "published gain"])
    text = [
        "# Accuracy on corrupted test clouds",
        "Mean over corruptions and severities of each final seed (at its best validation epoch), "
        "then mean ± sample standard deviation over seeds.",
        _markdown(table, {c: c for c in table}),
        *_elsewhere(manifest, "robustness", frame),
    ]
    return _join(text)


def molecules(manifest: Manifest, frame: pd.DataFrame) -> str:
    """``tables.molecules`` as Markdown: for every data set, tasks against optimizers."""
    base = titles.optimizer_title(manifest.baseline)
    text = [
        "# Molecules and graphs",
        f"Test scores at the best validation epoch, mean ± sample standard deviation over final "
        f"seeds; in brackets the change against {base}. A win is a strictly better mean.",
    ]
    for dataset, group in frame.groupby("dataset", sort=False):
        text.append(f"## {titles.dataset_title(dataset)}")
        rows = []
        for _, cells in group.groupby("task", sort=False):
            first = cells.iloc[0]
            arrow = {"max": "higher is better", "min": "lower is better"}[first["direction"]]
            metric = titles.metric_title(first["metric"], first["unit"])
            row = {"task": _task(manifest, first), "metric": f"{metric}, {arrow}"}
            for _, cell in cells.iterrows():
                score = plus_minus(cell["mean"], cell["std"], cell["unit"])
                if cell["optimizer"] != manifest.baseline:
                    score += f" ({percent(cell['change'])})"
                row[titles.optimizer_title(cell["optimizer"])] = score
                if cell["published_mean"] == cell["published_mean"]:
                    name = f"{titles.optimizer_title(cell['optimizer'])}, published"
                    row[name] = significant(cell["published_mean"])
            rows.append(row)
        table = pd.DataFrame(rows).fillna(DASH)
        text.append(_markdown(table, {c: c for c in table}))
        rivals = group[group["optimizer"] != manifest.baseline]
        for optimizer, cells in rivals.groupby("optimizer", sort=False):
            name = titles.optimizer_title(optimizer)
            text.append(f"{name} wins {int(cells['win'].sum())} of {len(cells)}.")
        text += _diverged(group)
    return _join([*text, STAND_IN])


def console(manifest: Manifest, frame: pd.DataFrame) -> str:
    """``tables.accuracy`` at the best validation epoch, for a terminal of 100 columns."""
    from tabulate import tabulate

    wide = _protocols(manifest, frame)
    columns = {
        "task": "task",
        "dataset": "data",
        "optimizer": "optimizer",
        "setting": "lr, wd",
        "metric": "metric",
        "best_validation": "test score",
        "gain": "gain",
    }
    if wide["published"].ne(DASH).any():
        columns["published"] = "published"
    base = titles.optimizer_title(manifest.baseline)
    table = wide[list(columns)].rename(columns=columns)
    note = (
        f"Test score at the best validation epoch, mean ± std of {len(manifest.seeds)} final "
        f"seed{'s' if len(manifest.seeds) > 1 else ''}; gain over {base}."
    )
    lines = [
        tabulate(table, headers="keys", showindex=False, tablefmt="simple", disable_numparse=True),
        note,
        *_diverged(frame[frame["protocol"] == "best_validation"]),
    ]
    return "\n".join(lines)


RENDERERS = {
    "accuracy": accuracy,
    "hessian": hessian,
    "rank": rank,
    "rank_summary": rank_summary,
    "robustness": robustness,
    "molecules": molecules,
}


def body(name: str, manifest: Manifest, frame: pd.DataFrame) -> str:
    """A table's Markdown to stand inside a notebook: without its title, headings a level down."""
    lines = RENDERERS[name](manifest, frame).split("\n")[1:]
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in lines).strip()


def _protocols(manifest: Manifest, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a task and optimizer, the protocols' scores as text in columns."""
    rows = []
    for _, group in frame.groupby(["task", "optimizer"], sort=False):
        cells = group.set_index("protocol")
        best = cells.loc["best_validation"]
        unit = best["unit"]
        diverged = f" ({best['diverged']} diverged)" if best["diverged"] else ""
        row = {
            "task": _task(manifest, best),
            "dataset": titles.dataset_title(best["dataset"]),
            "optimizer": titles.optimizer_title(best["optimizer"]),
            "setting": f"{best['lr']}, {best['wd']}",
            "metric": titles.metric_title(best["metric"], unit),
            "seeds": f"{best['seeds']}{diverged}",
            "gain": _gain(manifest, best, unit),
            "published": plus_minus(best["published_mean"], best["published_std"], unit),
            "published_gain": _gain(manifest, best, unit, "published_gain"),
        }
        for protocol in titles.PROTOCOLS:
            cell = cells.loc[protocol]
            row[protocol] = plus_minus(cell["mean"], cell["std"], unit)
        if best["diverged"] == best["seeds"]:
            row |= dict.fromkeys(titles.PROTOCOLS, "diverged")
        rows.append(row)
    return pd.DataFrame(rows)


def _elsewhere(manifest: Manifest, table: str, frame: pd.DataFrame) -> list[str]:
    """The published figures of the study's architectures on data that this study did not use."""
    column = "published_largest" if table == "hessian" else "published_mean"
    matched = frame[frame[column].notna()]
    known = set(zip(matched["dataset"], matched["architecture"], matched["optimizer"]))
    published = load.published(manifest, table)
    published = published[published["architecture"].isin(frame["architecture"])]
    rows = []
    for _, row in published.iterrows():
        if (row["dataset"], row["architecture"], row["optimizer"]) in known:
            continue
        name = titles.dataset_title(row["dataset"]) + ("-C" if table == "robustness" else "")
        cell = {
            "data": name,
            "architecture": titles.ARCHITECTURES.get(row["architecture"], row["architecture"]),
            "optimizer": titles.OPTIMIZERS[row["optimizer"]].split(" ")[0],
        }
        if table == "hessian":
            cell |= {"largest λ": f"{row['largest']:.2f}", "trace": f"{row['trace']:.2f}"}
        else:
            cell[f"{row['metric']}, {row['unit']}"] = plus_minus(row["mean"], row["std"], "%")
        rows.append(cell)
    if not rows:
        return []
    return [
        f"## Published, on other data ({SOURCE})",
        "For orientation only: these are not results on this study's data, so no row above is to "
        "be held against them.",
        _markdown(pd.DataFrame(rows), {c: c for c in rows[0]}),
    ]


def _diverged(frame: pd.DataFrame) -> list[str]:
    """A sentence on the seeds that diverged, if any did."""
    bad = frame[frame["diverged"] > 0]
    if bad.empty:
        return []
    cells = [f"{_pair(row)} ({row['diverged']} of {row['seeds']})" for _, row in bad.iterrows()]
    return [f"Diverged seeds, left out of mean and spread: {', '.join(cells)}."]


def _task(manifest: Manifest, row: pd.Series) -> str:
    return titles.task_title(row["task"], manifest.tasks[row["task"]])


def _pair(row: pd.Series) -> str:
    return f"{row['task']} with {row['optimizer']}"


def _gain(manifest: Manifest, row: pd.Series, unit: str, column: str = "gain") -> str:
    return DASH if row["optimizer"] == manifest.baseline else signed(row[column], unit)


def _ratio(manifest: Manifest, row: pd.Series, column: str) -> str:
    return DASH if row["optimizer"] == manifest.baseline else ratio(row[column])


def _with_residual(row: pd.Series, name: str) -> str:
    return f"{significant(row[name])} ({significant(row[f'{name}_residual'], 2)})"


def _optional(column: str) -> bool:
    return column.startswith(("published", "largest of"))


def _markdown(frame: pd.DataFrame, columns: dict[str, str]) -> str:
    table = frame[list(columns)].rename(columns=columns).astype(str)
    return table.to_markdown(index=False, disable_numparse=True)


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"
