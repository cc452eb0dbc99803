"""What every package uses: errors, files, seeding, the environment."""
