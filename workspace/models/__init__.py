"""Models as the user names them: located, checked, loaded, and written for others to use."""
