"""The readable tables as LaTeX (booktabs): each pipe table of a Markdown text becomes a tabular."""

import re

SEPARATOR = re.compile(r"\|[\s:|-]+\|")
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "λ": r"$\lambda$", "θ": r"$\theta$",
    "∣": r"$|$", "–": "--", "…": r"\dots{}", "↓": r"$\downarrow$", "Σ": r"$\Sigma$", "²": r"$^2$",
    "³": r"$^3$", "₀": r"$_0$", "₁": r"$_1$", "μ": r"$\mu$", "α": r"$\alpha$",
    "ε": r"$\varepsilon$",    "Δ": r"$\Delta$", "⟨": r"$\langle$", "⟩": r"$\rangle$", "`": "",
}  # fmt: skip


def escape(text: str) -> str:
    """``text`` for LaTeX; code marks are dropped."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def booktabs(markdown: str) -> str:
    """Every pipe table of ``markdown`` as a tabular, the text before it as a comment."""
    made, lines = [], []
    for line in [*markdown.split("\n"), ""]:
        if line.startswith("|"):
            lines.append(line)
            continue
        if lines:
            made.append(_tabular(lines))
            lines = []
        if line.strip():
            made.append(f"% {line}")
    return "% needs \\usepackage{booktabs}\n" + "\n".join(made) + "\n"


def _tabular(lines: list[str]) -> str:
    rows = [
        [escape(cell.strip()) for cell in line.strip()[1:-1].split("|")]
        for line in lines
        if not SEPARATOR.fullmatch(line.strip())
    ]
    body = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{tabular}{" + "l" * len(rows[0]) + "}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
