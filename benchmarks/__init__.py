"""Speed against peers: ``pytest benchmarks/`` measures, ``python -m benchmarks.report`` renders."""
