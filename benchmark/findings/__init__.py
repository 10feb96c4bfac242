"""What is made of records alone: tables, verdicts on the claims, texts, the report. Nothing here needs torch."""
