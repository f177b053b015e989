"""Where the processor time of a run goes: work, and what is around it, by rule.

    python benchmarks/overhead.py TABLE.json snakemake --profile profiles/demo --cores 1

runs the command and adds its figures to TABLE.json, so that a study may be measured in parts;
without a command it prints the table. A hook (``sitecustomize``) lets each Python process of the
run note its processor seconds when it ends; a job's log says how many of them went by before its
work began (interpreter and imports).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

HOOK = """
import atexit, json, os, sys, time

def note(started=time.monotonic()):
    job = getattr(sys.modules.get("__main__"), "snakemake", None)
    rule = getattr(job, "rule", None)
    main = os.path.basename(sys.argv[0]) == "snakemake"
    if rule is None and not main:
        return  # a child, counted by the process that waited for it
    times = os.times()
    log = list(getattr(job, "log", []) or [])
    entry = {
        "rule": rule,
        "log": log[0] if log else None,
        "own": times.user + times.system,
        "children": times.children_user + times.children_system,
        "wall": time.monotonic() - started,
    }
    with open(os.environ["OVERHEAD_NOTES"], "a") as file:
        file.write(json.dumps(entry) + "\\n")

atexit.register(note)
"""
LINE = re.compile(r"finished in .*\(CPU ([0-9.]+) s after ([0-9.]+) s of starting\)")


def measure(command: list[str]) -> tuple[list[dict], int]:
    """Run ``command``; the processor seconds of its jobs and of Snakemake itself, its status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(HOOK)
        notes = folder / "notes"
        notes.touch()
        paths = [name, *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OVERHEAD_NOTES": str(notes),
        }
        status = subprocess.run(command, env=variables).returncode
        entries = [json.loads(line) for line in notes.read_text().splitlines()]
    for entry in entries:
        if entry["rule"] is not None:
            found = LINE.search(Path(entry["log"]).read_text()) if entry["log"] else None
            entry["work"], entry["start"] = map(float, found.groups()) if found else (0.0, 0.0)
    return entries, status


def table(entries: list[dict]) -> str:
    """Markdown: for each rule, its jobs, and CPU seconds before, in and after their work."""
    rules = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    snakemake = 0.0
    for entry in entries:
        if entry["rule"] is None:
            snakemake += entry["own"]
            continue
        row = rules[entry["rule"]]
        total = entry["own"] + entry["children"]
        rest = max(total - entry["work"] - entry["start"], 0.0)
        for i, value in enumerate((1, entry["start"], entry["work"], rest)):
            row[i] += value
    lines = [
        "| rule | jobs | start (interpreter, imports) | the job | its end |",
        "|---|---:|---:|---:|---:|",
    ]
    order = sorted(rules.items(), key=lambda item: -sum(item[1][1:]))
    total = [sum(row[i] for row in rules.values()) for i in range(4)]
    for name, row in [*order, ("all jobs", total)]:
        lines.append(f"| {name} | {row[0]} | {row[1]:.1f} | {row[2]:.1f} | {row[3]:.1f} |")
    lines.append(f"| Snakemake itself | | | {snakemake:.1f} | |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Measure a command, or print what was measured."""
    path, status = Path(arguments[0]), 0
    entries = json.loads(path.read_text()) if path.exists() else []
    if arguments[1:]:
        found, status = measure(arguments[1:])
        entries += found
        path.write_text(json.dumps(entries))
    print(table(entries))
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
