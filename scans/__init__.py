"""Medical scans: DICOM and NIfTI, their geometry, slices, and DICOM output."""
