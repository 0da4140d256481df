"""Batch inference: rows in a stream of blocks through functions and models, in bounded memory.

>>> import shoal_ml.batch as batch
>>> ds = batch.range(1000).map_batches(lambda rows: {"square": rows["id"] ** 2})
"""

from shoal_ml.batch.batch_predictor import BatchPredictor
from shoal_ml.batch.dataset import Dataset
from shoal_ml.batch.errors import (
    BatchError,
    ColumnError,
    RaggedBatchError,
    ReadError,
    RowCountError,
    SchemaError,
    WriteError,
)
from shoal_ml.batch.prediction_errors import JournalError, PlanChangedError, TooManyErrors
from shoal_ml.batch.predictions import Predictions
from shoal_ml.batch.predictors import (
    Checkpoint,
    FunctionPredictor,
    OnnxPredictor,
    PipelinePredictor,
    Predictor,
    SklearnPredictor,
    TorchPredictor,
)
from shoal_ml.batch.reading import (
    from_arrow,
    from_batches,
    from_dask,
    from_huggingface,
    from_items,
    from_iterable,
    from_numpy,
    from_pandas,
    from_torch,
    range,
    read_binary_files,
    read_csv,
    read_images,
    read_json,
    read_parquet,
    read_text,
)
from shoal_ml.batch.splitting import Shard
from shoal_ml.batch.writing import Written

__all__ = [
    "BatchError",
    "BatchPredictor",
    "Checkpoint",
    "ColumnError",
    "Dataset",
    "FunctionPredictor",
    "JournalError",
    "OnnxPredictor",
    "PipelinePredictor",
    "PlanChangedError",
    "Predictions",
    "Predictor",
    "RaggedBatchError",
    "ReadError",
    "RowCountError",
    "SchemaError",
    "Shard",
    "SklearnPredictor",
    "TooManyErrors",
    "TorchPredictor",
    "WriteError",
    "Written",
    "from_arrow",
    "from_batches",
    "from_dask",
    "from_huggingface",
    "from_items",
    "from_iterable",
    "from_numpy",
    "from_pandas",
    "from_torch",
    "range",
    "read_binary_files",
    "read_csv",
    "read_images",
    "read_json",
    "read_parquet",
    "read_text",
]
