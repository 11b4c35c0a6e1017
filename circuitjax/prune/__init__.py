"""Floor 4: the search: what is minimised, training, ranking, cutting, elimination, calibration."""

import sys
import types


class _Package(types.ModuleType):
    """`cj.prune` was a function once; whoever still calls it is told the new name."""

    def __call__(self, *args: object, **kwargs: object) -> None:
        del args, kwargs
        raise TypeError("cj.prune is a package now: call cj.find_circuit(model, task, ...)")


sys.modules[__name__].__class__ = _Package
