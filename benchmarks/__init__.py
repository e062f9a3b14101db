"""Speed and memory of the program against a baseline in the manner of the released code."""
