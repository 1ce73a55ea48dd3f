"""HQ-SAM 2: sharp masks from clicks, boxes and paint, on images and through videos."""
