"""Data of one's own: a ``.npz`` file, a table, or a folder of images."""

from mvae_fast.data.own.reading import read_data
from mvae_fast.data.own.standardize import standardized
from mvae_fast.data.own.userdata import UserData

__all__ = ["UserData", "read_data", "standardized"]
