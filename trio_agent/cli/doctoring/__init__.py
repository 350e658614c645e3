"""What `trio-agent doctor` looks at. Each module has the checks of one matter."""
