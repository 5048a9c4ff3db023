"""Model families that can be measured, cut and rebuilt."""

from agflow.models.adapter import Adapter, PrunableLayer
from agflow.models.registry import adapter_for, build, count_macs, count_params, describe, model_name

__all__ = ["Adapter", "PrunableLayer", "adapter_for", "build", "count_macs", "count_params", "describe", "model_name"]
