"""The documents of the Open Container Initiative as typed values: parse, validate, write; no I/O."""
