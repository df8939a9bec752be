"""The masking zoo: networks, defences, and what a stronger attack shows about each pair."""
