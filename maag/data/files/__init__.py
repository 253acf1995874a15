"""Files of images and labels, opened and written: NIfTI, DICOM, pictures, and the text beside them."""
