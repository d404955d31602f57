"""Ready configs, one a file; the file is named as the config is."""
