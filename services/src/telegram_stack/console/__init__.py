"""The operators' console: pages of the API's program, which ask the API's own operations."""
