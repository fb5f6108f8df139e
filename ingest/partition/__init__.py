"""Documents to elements, in a child process that a hostile file may kill without harm."""
