"""Fitted models used together: a blend of models, weights that depend on the context, imputation, nats and conditional draws."""
