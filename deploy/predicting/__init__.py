"""Many volumes through one model: jobs, their crew, the ledger, and tables of what came out."""
