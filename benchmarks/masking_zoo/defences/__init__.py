"""Defences as strangers would write them: plain modules around a network, all of it inline."""
