"""What the scripts share: options, features and caches, scoring, training and evaluation, results."""
