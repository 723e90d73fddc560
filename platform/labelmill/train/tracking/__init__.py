"""What others can follow of a training run while it goes on: TensorBoard's files, a run on MLflow.

Written by the process that started the run, which reads its progress; no worker knows of it.
"""
