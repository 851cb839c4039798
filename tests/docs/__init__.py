"""The documents are true: what they say can be typed is typed, what they show is shown.

Every fenced block of an English page is one of

- `sh`, or lines that begin with `$ `: commands. Those of this project run for real on a
  simulated node (`node.py`); other programs (`outside.py`) have their paths and subcommands
  checked. Of a transcript the output is compared;
- without a language: something shown. The comment above it says where it is from;
- `yaml` and `json`: parsed, and configuration files checked by the program itself.

The comment stands in a line of its own right above the block:

    <!-- output of: COMMAND -->       the block is what COMMAND prints
    <!-- ...; after: simulate inject ... -->   and before that this is done (and healed again)
    <!-- ...; cut -->                 and lines may be left out anywhere
    <!-- output from: SOURCE -->      nothing here can print it; a file of the tests, or
                                      a place and what ran there
    <!-- outputs from: SOURCE -->     below the title: of all that say nothing else
    <!-- not run: WHY -->             for commands that cannot run here
    <!-- figure -->                   a drawing, a form, a fragment: nobody's output
    <!-- in: FILE; before: LINE -->   a tutorial's code, see test_tutorials.py

A line `...` in an output stands for any lines; the end of a line that is `...` for the
rest of it. Times, sizes of memory and random names are not compared.
"""
