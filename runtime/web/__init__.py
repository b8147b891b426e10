"""What the page and the HTTP interface share: where they listen, whom they let in."""
