"""From files on disk to slices on a device, and the exact inverse."""
