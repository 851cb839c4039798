"""What several tests share: a fake host, and short ways to make values."""
