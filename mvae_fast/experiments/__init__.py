"""Training, and the tables and figures of the paper. Needs the extra ``mvae_fast[train]``."""
