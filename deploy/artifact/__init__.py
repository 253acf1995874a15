"""An exported model on disk: its manifest, and all that the manifest tells of it."""
