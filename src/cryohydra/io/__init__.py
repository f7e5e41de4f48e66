"""Files: whole or not there, read without trust, written as others read them."""
