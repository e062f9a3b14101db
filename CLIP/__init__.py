"""CLIP: backbone, tokenizer, weight files, and the adapters of MVFA."""
