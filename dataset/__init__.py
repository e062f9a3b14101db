"""Folders to tensors: the catalog of objects, few- and zero-shot sets, shot lists and demo images (SPEC section 1)."""
