"""Fast primitives that know no model: neighbors, messages, batch statistics, chunks, precision."""
