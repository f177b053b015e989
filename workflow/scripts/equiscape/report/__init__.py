"""What the study found: tables beside the published figures, and the figures of the notebooks.

The top floor of the library. It reads the products that rules wrote and computes nothing that a
rule should have written; it imports neither torch nor the floors that train and measure.
"""
