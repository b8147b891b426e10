"""What an exported model is worth: accuracy on DAVIS, and speed, with the conditions stated."""
