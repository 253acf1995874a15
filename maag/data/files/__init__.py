"""Reading and writing files of images and labels: NIfTI, DICOM, pictures, and text files beside them."""
