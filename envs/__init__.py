"""The problems, and the adapter that makes Gymnasium environments of them."""
