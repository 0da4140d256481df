"""Serving: deployments of models and of whatever else answers requests, by handle and over HTTP.

>>> from shoal_ml import serve
>>> @serve.deployment
... class Doubler:
...     def __call__(self, x):
...         return 2 * x
>>> serve.run(Doubler.bind(), local=True).remote(21).result()
42
"""

from shoal_ml.serve.batching import batch
from shoal_ml.serve.contexts import (
    ReplicaContext,
    RequestContext,
    current_request,
    get_multiplexed_model_id,
    get_replica_context,
)
from shoal_ml.serve.deployments import Application, Deployment, deployment
from shoal_ml.serve.errors import (
    BackPressureError,
    DeploymentFailedError,
    ModelLoadError,
    RequestCancelledError,
    UnknownApplicationError,
)
from shoal_ml.serve.handles import CallOptions, DeploymentHandle, Response, ResponseStream
from shoal_ml.serve.ingress_apps import ingress
from shoal_ml.serve.multiplexing import multiplexed
from shoal_ml.serve.options import AutoscalingOptions, DeploymentOptions, HTTPOptions
from shoal_ml.serve.predictors import Predictor, predictor
from shoal_ml.serve.running import (
    delete,
    deploy,
    get_app_handle,
    get_deployment_handle,
    run,
    shutdown,
    start,
    status,
)
from shoal_ml.serve.specs import ApplicationSpec, DeploymentSpec, build
from shoal_ml.serve.status import ApplicationStatus, DeploymentStatus, ReplicaStatus, ServeStatus

__all__ = [
    "Application",
    "ApplicationSpec",
    "ApplicationStatus",
    "AutoscalingOptions",
    "BackPressureError",
    "CallOptions",
    "Deployment",
    "DeploymentFailedError",
    "DeploymentHandle",
    "DeploymentOptions",
    "DeploymentSpec",
    "DeploymentStatus",
    "HTTPOptions",
    "ModelLoadError",
    "Predictor",
    "ReplicaContext",
    "ReplicaStatus",
    "RequestCancelledError",
    "RequestContext",
    "Response",
    "ResponseStream",
    "ServeStatus",
    "UnknownApplicationError",
    "batch",
    "build",
    "current_request",
    "delete",
    "deploy",
    "deployment",
    "get_app_handle",
    "get_deployment_handle",
    "get_multiplexed_model_id",
    "get_replica_context",
    "ingress",
    "multiplexed",
    "predictor",
    "run",
    "shutdown",
    "start",
    "status",
]
