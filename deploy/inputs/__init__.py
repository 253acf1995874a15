"""What is to be predicted: images in files, series and channels, here or in buckets."""
