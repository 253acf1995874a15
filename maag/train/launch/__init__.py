"""The same training run over a Ray cluster; nothing else in maag knows of Ray Train."""
