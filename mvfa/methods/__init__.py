"""The methods that the scripts run by --method: MVFA, and its rivals on the same loops."""
