"""What a user writes: one YAML or JSON file describes one run."""

from labelmill.spec.augment import Augment
from labelmill.spec.data import ExtraData, Split, TrainData
from labelmill.spec.evaluate import EvaluateData, EvaluateSpec
from labelmill.spec.label import Images, LabelSpec, Prices
from labelmill.spec.load import LoadedSpec, Spec, load_spec
from labelmill.spec.loss import Loss
from labelmill.spec.network import TrainModel, architectures
from labelmill.spec.optimize import Optimize, optimizers
from labelmill.spec.pattern import pattern_regex
from labelmill.spec.schema import json_schema
from labelmill.spec.serve import Batching, ServeSpec
from labelmill.spec.thresholds import ThresholdRule, ThresholdRules
from labelmill.spec.train import Range, TrainSpec, Workers

__all__ = [
    "Augment",
    "Batching",
    "EvaluateData",
    "EvaluateSpec",
    "ExtraData",
    "Images",
    "LabelSpec",
    "LoadedSpec",
    "Loss",
    "Optimize",
    "Prices",
    "Range",
    "ServeSpec",
    "Spec",
    "Split",
    "ThresholdRule",
    "ThresholdRules",
    "TrainData",
    "TrainModel",
    "TrainSpec",
    "Workers",
    "architectures",
    "json_schema",
    "load_spec",
    "optimizers",
    "pattern_regex",
]
