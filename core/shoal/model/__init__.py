"""What every layer speaks of: ids, resources, options, messages and errors. Imports nothing of ours."""
