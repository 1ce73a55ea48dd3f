"""A small renderer and one scene for it; `render_clip.py` turns them into the example clip."""
