"""The app behind `fclm app`: cut objects out in the browser, and the same over HTTP."""
