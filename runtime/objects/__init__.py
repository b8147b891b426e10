"""The objects of a stream: ids and slots, who is followed or paused, and edits of an estimate."""
