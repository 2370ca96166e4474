"""An ICR API for laptops, tests and demos: it keeps state, moves credits and forgets it all."""
