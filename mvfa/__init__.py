"""What the scripts share: options, features, scoring, training and evaluation, results."""
