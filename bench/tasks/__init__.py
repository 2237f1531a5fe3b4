"""Small adaptation tasks: a base model made and pre-trained here, then a shifted target."""
