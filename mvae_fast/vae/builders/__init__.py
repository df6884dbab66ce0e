"""Models from plain descriptions: networks, modalities and flows by name, and their files."""
