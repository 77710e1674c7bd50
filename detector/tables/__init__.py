"""The published tables, printed and measured side by side."""
