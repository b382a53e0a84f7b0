"""The demo's own parts: a model, pictures, a broker, a link that can be made bad, and the stage that joins them."""
