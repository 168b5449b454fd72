"""Ten good training loops, each in the manner of a well known tutorial, in our words: there is nothing to object to."""
