"""What is known of a study before any job: its file, its schema, its entries, its targets.

Nothing here imports torch, numpy or pandas, since every Snakemake process reads it.
"""
