"""An exported model on disk: its manifest, and the parts of the manifest."""
