"""What a type checker is told of the public names: mypy checks these files, nothing runs them."""
