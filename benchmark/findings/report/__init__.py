"""One HTML file of what the records say: verdicts, tables, figures, pictures, and what is not there. No torch."""
