"""What FastCNF is measured against, each an ``nn.Module`` called as ``peer(z, logp, probes)``."""
