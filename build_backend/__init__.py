"""How mvae_fast is built: the PEP 517 hooks and the commands that setup.py uses. Not installed."""
