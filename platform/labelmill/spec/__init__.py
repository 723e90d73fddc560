"""What a user writes: one YAML or JSON file describes one run."""

from labelmill.spec.adapt import Adapt
from labelmill.spec.augment import Augment, ColourJitter
from labelmill.spec.catalogue import Architecture, architecture_table, architectures, find_architectures
from labelmill.spec.data import ExtraData, Split, TrainData
from labelmill.spec.evaluate import EvaluateData, EvaluateSpec
from labelmill.spec.few_shot import FewShot
from labelmill.spec.label import Images, LabelSpec, Prices
from labelmill.spec.load import LoadedSpec, Spec, load_spec
from labelmill.spec.loss import Loss
from labelmill.spec.network import TrainModel
from labelmill.spec.optimize import Optimize, optimizers
from labelmill.spec.pattern import pattern_regex
from labelmill.spec.published import Average, Distill, Ensemble, Prune, Quantize
from labelmill.spec.schema import json_schema
from labelmill.spec.serve import Batching, ServeSpec
from labelmill.spec.thresholds import ThresholdRule, ThresholdRules
from labelmill.spec.tracking import Tracking
from labelmill.spec.train import Range, TrainSpec, Workers
from labelmill.spec.tune import Interval, Tune, trial_specs

__all__ = [
    "Adapt",
    "Architecture",
    "Augment",
    "Average",
    "Batching",
    "ColourJitter",
    "Distill",
    "Ensemble",
    "EvaluateData",
    "EvaluateSpec",
    "ExtraData",
    "FewShot",
    "Images",
    "Interval",
    "LabelSpec",
    "LoadedSpec",
    "Loss",
    "Optimize",
    "Prices",
    "Prune",
    "Quantize",
    "Range",
    "ServeSpec",
    "Spec",
    "Split",
    "ThresholdRule",
    "ThresholdRules",
    "Tracking",
    "TrainData",
    "TrainModel",
    "TrainSpec",
    "Tune",
    "Workers",
    "architecture_table",
    "architectures",
    "find_architectures",
    "json_schema",
    "load_spec",
    "optimizers",
    "pattern_regex",
    "trial_specs",
]
