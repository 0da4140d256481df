"""Metrics of your own code, and those of the cluster, for Prometheus: ``shoal.metrics``."""

from shoal.api.metrics import Counter, Gauge, Histogram, read
from shoal.api.metrics_endpoint import MetricsEndpoint, serve
from shoal.observe.metric_book import MetricRow

__all__ = ["Counter", "Gauge", "Histogram", "MetricRow", "MetricsEndpoint", "read", "serve"]
