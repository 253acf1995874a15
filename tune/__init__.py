"""The search for better loss weights and gate settings."""
