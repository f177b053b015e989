"""Training one cell: the loop, its resume points, its recorders and its arithmetic.

Importing this package imports no torch, so that the workflow can check names cheaply.
"""

# Raise it where the code of training changes what a resume point means: older ones are set aside.
VERSION = 2

RECORDERS = {
    "gradient_norm": "equiscape.training.recorders:GradientNorm",
    "products": "equiscape.training.products:Products",
    "steps": "equiscape.training.steps:Steps",
}
CONSTRAINTS = {
    "spectrum-match": "equiscape.training.spectrum_match:SpectrumMatch",
}
