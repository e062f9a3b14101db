"""What prepare_data.py does: downloads, checks of the data, conversion to the layout."""
