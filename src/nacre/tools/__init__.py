"""What can be done with sound besides coding it. None of these needs another, but for `html`, which makes pages."""
