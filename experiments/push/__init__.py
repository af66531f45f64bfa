"""Upload of a student to the Hugging Face Hub."""
