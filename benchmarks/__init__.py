"""What is measured: each module is a script, with its question at the top."""
