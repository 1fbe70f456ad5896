"""The book: a Sphinx extension that decides what runs again, pages executed side by side, and
notebooks as a batch."""
