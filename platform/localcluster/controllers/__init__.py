"""Controllers: each drives one kind of object towards what its spec asks for, as an ordinary API client."""
