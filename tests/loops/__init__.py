"""Ten good training loops, each in the manner of a well known tutorial and in our words."""
