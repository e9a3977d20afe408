"""Images and arrays on disk, preprocessed into network inputs."""
