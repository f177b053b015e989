"""Names as a reader knows them, for tables and figures."""

from equiscape.report.manifest import Manifest

ARCHITECTURES = {
    "egnn": "EGNN",
    "pointnet": "PointNet",
    "dgcnn": "DGCNN",
    "gotennet": "GotenNet",
    "gine": "GINE",
}
DATASETS = {
    "modelnet40": "ModelNet40",
    "qm9": "QM9",
    "zinc": "ZINC",
    "peptides-func": "Peptides-func",
}
OPTIMIZERS = {"adam": "Adam (AdamW)", "adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}
PROTOCOLS = {
    "best_validation": "best validation epoch",
    "last": "last epoch",
    "best_test": "best test epoch",
}
TARGETS = {
    "mu": "μ",
    "alpha": "α",
    "homo": "ε HOMO",
    "lumo": "ε LUMO",
    "gap": "Δε",
    "r2": "⟨R²⟩",
    "zpve": "ZPVE",
    "u0": "U₀",
    "u298": "U",
    "h298": "H",
    "g298": "G",
    "u0_atom": "U₀ (atomization)",
    "u298_atom": "U (atomization)",
    "h298_atom": "H (atomization)",
    "g298_atom": "G (atomization)",
    "cv": "c_v",
}


UNITS = {"a0^3": "a₀³", "a0^2": "a₀²", "cal/mol K": "cal/(mol K)"}


def unit_title(unit: str) -> str:
    """``a0^3`` -> a₀³; an unknown unit stays as it is."""
    return UNITS.get(unit, unit)


def metric_title(name: str, unit: str) -> str:
    """``MAE (D)``, or the bare name where the metric has no unit."""
    return f"{name} ({unit_title(unit)})" if isinstance(unit, str) and unit else name


def optimizer_title(name: str) -> str:
    """``muon`` -> Muon, ``muon-ns3`` -> Muon ns3; an unknown name stays as it is."""
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    stem, _, rest = name.partition("-")
    return f"{OPTIMIZERS[stem].split(' ')[0]} {rest}" if stem in OPTIMIZERS and rest else name


def short_title(name: str) -> str:
    """``adam`` -> Adam: :func:`optimizer_title` without what stands in brackets."""
    return optimizer_title(name).split(" (")[0]


def dataset_title(name: str) -> str:
    """``modelnet40`` -> ModelNet40; an unknown name stays as it is."""
    return DATASETS.get(name, name)


def task_title(name: str, task: dict) -> str:
    """``gotennet-mu`` -> GotenNet μ, ``egnn-relaxed`` -> EGNN relaxed, ``egnn`` -> EGNN."""
    architecture = task["architecture"]
    title = ARCHITECTURES.get(architecture, architecture)
    if name == architecture:
        return title
    if not name.startswith(f"{architecture}-"):
        return name
    rest = name[len(architecture) + 1 :]
    if rest in (task.get("target"), (task.get("target") or "").replace("_", "-")):
        rest = TARGETS.get(task["target"], rest)
    return f"{title} {DATASETS.get(rest, rest)}"


def task_titles(manifest: Manifest) -> dict[str, str]:
    """Task name -> title, for every task of the study."""
    return {name: task_title(name, task) for name, task in manifest.tasks.items()}


def optimizer_titles(manifest: Manifest) -> dict[str, str]:
    """Optimizer name -> title, for every optimizer of the study."""
    return {name: optimizer_title(name) for name in manifest.optimizers}
