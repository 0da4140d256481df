"""Training: many models at once."""

from shoal_ml.train.many.errors import CatalogError, FitError, MissingModelError
from shoal_ml.train.many.fit_many import fit_many
from shoal_ml.train.many.fitted import FittedModels

__all__ = ["CatalogError", "FitError", "FittedModels", "MissingModelError", "fit_many"]
