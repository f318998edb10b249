"""What a ResNet is."""
