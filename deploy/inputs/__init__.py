"""Images to predict: files, DICOM series and channels, local or in buckets."""
