"""What a run is: every setting, its type, limits and help, and nothing about machines."""
