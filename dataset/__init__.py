"""Folders to tensors: catalog of objects, images, few- and zero-shot sets, shots (SPEC 1)."""
