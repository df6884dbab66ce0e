"""From the experts of single modalities to the posterior of any subset of them."""
