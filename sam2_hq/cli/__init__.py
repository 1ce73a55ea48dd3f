"""The `sam2-hq` command."""
