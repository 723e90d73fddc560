"""What a user writes: one YAML or JSON file describes one run."""

from labelmill.spec.evaluate import EvaluateData, EvaluateSpec
from labelmill.spec.label import Images, LabelSpec, Prices
from labelmill.spec.pattern import pattern_regex
from labelmill.spec.reading.load import LoadedSpec, Spec, load_spec, spec_of
from labelmill.spec.reading.portable import Portable, portable
from labelmill.spec.reading.schema import json_schema
from labelmill.spec.schedule import Notify, Schedule
from labelmill.spec.serve import Batching, ServeSpec
from labelmill.spec.train.adapt import Adapt
from labelmill.spec.train.augment import Augment, ColourJitter
from labelmill.spec.train.catalogue import Architecture, architecture_table, architectures, find_architectures
from labelmill.spec.train.data import ExtraData, Split, SplitWay, TrainData
from labelmill.spec.train.few_shot import FewShot
from labelmill.spec.train.loss import Loss
from labelmill.spec.train.network import TrainModel
from labelmill.spec.train.optimize import Optimize, optimizers
from labelmill.spec.train.published import Average, Distill, Ensemble, Prune, Quantize
from labelmill.spec.train.thresholds import ThresholdRule, ThresholdRules
from labelmill.spec.train.tracking import Tracking
from labelmill.spec.train.train import Range, TrainSpec, Workers
from labelmill.spec.train.tune import Interval, Tune, trial_specs

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
    "Notify",
    "Optimize",
    "Portable",
    "Prices",
    "Prune",
    "Quantize",
    "Range",
    "Schedule",
    "ServeSpec",
    "Spec",
    "Split",
    "SplitWay",
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
    "portable",
    "spec_of",
    "trial_specs",
]
