"""Where the processor time of a run goes: work, and what is around it, by rule.

    python benchmarks/overhead.py NOTES.jsonl snakemake --profile profiles/demo --cores 1

runs the command and adds what its jobs took to NOTES.jsonl, so that a study may be measured in
parts; without a command it prints the table. A hook (``sitecustomize``) lets each Python process of
the run note its processor seconds when it ends; a job's log says how many of them went by before
its work began (interpreter and imports). What its interpreter spends on its own end is not seen
from within: it is what Snakemake waited for beyond what the jobs noted.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

HOOK = r"""
import atexit, json, os, re, sys, time

LINE = re.compile(r"finished in .*\(CPU ([0-9.]+) s after ([0-9.]+) s of starting\)")

def note(started=time.monotonic()):
    job = getattr(sys.modules.get("__main__"), "snakemake", None)
    rule = getattr(job, "rule", None)
    if rule is None and os.path.basename(sys.argv[0]) != "snakemake":
        return  # a child, counted by the process that waited for it
    times = os.times()
    entry = {"rule": rule, "own": times.user + times.system, "wall": time.monotonic() - started}
    entry["children"] = times.children_user + times.children_system
    log = list(getattr(job, "log", None) or [])
    if log:
        found = LINE.findall(open(log[0]).read())
        if not found:
            return  # it failed
        entry["work"], entry["start"] = map(float, found[-1])
    with open(os.environ["OVERHEAD_NOTES"], "a") as file:
        file.write(json.dumps(entry) + "\n")

atexit.register(note)
"""


def measure(command: list[str], notes: Path) -> int:
    """Run ``command``, whose processes add to ``notes``; its status."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "sitecustomize.py").write_text(HOOK)
        paths = [name, *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {"PYTHONPATH": os.pathsep.join(paths), "OVERHEAD_NOTES": str(notes.resolve())}
        return subprocess.run(command, env={**os.environ, **variables}).returncode


def table(entries: list[dict]) -> str:
    """Markdown: for each rule, its jobs, and CPU seconds before, in and after their work."""
    rules = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    snakemake = waited = noted = 0.0
    for entry in entries:
        if entry["rule"] is None:
            snakemake += entry["own"]
            waited += entry["children"]
            continue
        row = rules[entry["rule"]]
        total = entry["own"] + entry["children"]
        noted += total
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
    lines.append(f"| interpreters that end | | | | {max(waited - noted, 0.0):.1f} |")
    lines.append(f"| Snakemake itself | | | {snakemake:.1f} | |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Measure a command, or print what was measured."""
    notes = Path(arguments[0])
    status = measure(arguments[1:], notes) if arguments[1:] else 0
    print(table([json.loads(line) for line in notes.read_text().splitlines()]))
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
