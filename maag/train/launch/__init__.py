"""Training over a Ray cluster; the only part of maag that uses Ray Train."""
