"""Frames and masks in, masks and videos out."""
