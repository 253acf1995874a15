"""Batch prediction: jobs, workers, the ledger, and tables of the results."""
