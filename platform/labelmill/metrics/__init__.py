"""How good answers are, per label and overall, how sure one may be of it, and where the thresholds belong.

Targets and confidences are matrices [N, L], one row a picture, one column a label, for every task: binary has one
column, multi_class is one-hot. What comes back are plain JSON values. A number that is not defined (the precision of a
label never predicted) is None, never NaN and never a zero that looks like a result. numpy alone, no torch.

`evaluate` gives the metrics:

    num_pictures
    accuracy                     multi_label: all labels of a picture right (subset accuracy)
    balanced_accuracy            multi_class: mean recall; else the mean over labels of (recall + specificity) / 2
    top_3_accuracy, top_5_accuracy          multi_class with more labels than that; else None
    macro_precision, macro_recall, macro_f1          mean over labels, see `evaluate`
    micro_precision, micro_recall, micro_f1          over all decisions
    weighted_precision, weighted_recall, weighted_f1          mean over labels, by their support
    map                          mean of average_precision over the labels that have it
    pr_auc, roc_auc              means over the labels that have them
    ece                          expected calibration error, as in `reliability`
    per_label: {label: {
        precision, recall, f1
        average_precision, pr_auc, roc_auc
        ece                      of this label's confidences alone
        support                  pictures that have the label
        predicted                pictures that were given it
        true_positives, false_positives, false_negatives, true_negatives     the label's own confusion matrix
    }}

`intervals` gives what a bootstrap over the pictures says of most of these:

    level                        0.95
    num_resamples
    <metric>: [low, high]        every single number of `evaluate` but num_pictures and the two of calibration
    per_label: {label: {precision, recall, f1, average_precision, pr_auc, roc_auc: [low, high] or None}}

`difference` gives the same of the lead that one model has over another on the same pictures.

`confusion`:

    counts                       multi_class: counts[i][j] pictures of labels[i] were called labels[j]; None with more
                                 than 200 labels, and for the other tasks, whose matrices stand in per_label
    pairs                        multi_class: the 50 most frequent confusions, [{label, predicted, count}]; else []
    together                     multi_label: together[i][j] pictures have labels[i] and labels[j], on the diagonal the
                                 support; None as above
    predicted_together           multi_label: the same of what was predicted

`threshold_curves` gives, for at most 200 labels, those with most pictures, also of a multi_class model, one against the
rest:

    {label: {threshold, precision, recall, f1, false_positive_rate}}     lists of one length, by rising threshold;
                                 any may hold None. recall over false_positive_rate is the ROC curve.

`reliability`:

    ece
    bins: [{low, high, count, confidence, accuracy}]     15 of equal width; empty ones are left out. multi_class: the
                                 confidence of the top label and how often it is right; else of every pair of a picture
                                 and a label, and how often the label is there.
"""

from labelmill.metrics.confusion import confusion
from labelmill.metrics.curves import threshold_curves
from labelmill.metrics.decisions import Decisions, decide
from labelmill.metrics.evaluation import evaluate
from labelmill.metrics.intervals import Difference, difference, intervals
from labelmill.metrics.reliability import reliability
from labelmill.metrics.thresholds import Thresholds, choose_thresholds

__all__ = [
    "Decisions",
    "Difference",
    "Thresholds",
    "choose_thresholds",
    "confusion",
    "decide",
    "difference",
    "evaluate",
    "intervals",
    "reliability",
    "threshold_curves",
]
