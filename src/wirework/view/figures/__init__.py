"""Pictures of circuits, measures and studies."""
