"""What lies behind a network: read from its source, continued into its manifest, and what people should know of it."""
