"""The loss around a checkpoint: Hessian spectrum and trace, two-dimensional slices.

``hessian`` and ``slices`` are what the workflow calls; ``objective`` turns a task into a function
of one flat parameter vector, ``lanczos`` and ``trace`` are plain numerical linear algebra.
"""
