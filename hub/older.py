"""The same kernel for older loaders, which look for a package of its name in the folder."""

import importlib.util
import sys
from pathlib import Path

_folder = Path(__file__).resolve().parent.parent
_name = f"_fast_cnf_{abs(hash(_folder)):x}"  # several versions may be loaded side by side
_spec = importlib.util.spec_from_file_location(_name, _folder / "__init__.py")
assert _spec is not None and _spec.loader is not None
_kernel = importlib.util.module_from_spec(_spec)
sys.modules[_name] = _kernel
_spec.loader.exec_module(_kernel)

__all__ = _kernel.__all__
globals().update({name: getattr(_kernel, name) for name in __all__})
