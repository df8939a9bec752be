"""Images and labels: arrays, files, folders and known data sets."""
