"""What a stream remembers: banks of past frames, long-term memory, and how much it may take."""
