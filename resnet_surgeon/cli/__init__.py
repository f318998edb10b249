"""What a person types: parse, call one public function, print."""
