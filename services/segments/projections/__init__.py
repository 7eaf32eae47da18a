"""What segments know: definitions and members, profiles' facts, and what is due when."""
