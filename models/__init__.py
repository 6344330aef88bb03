"""What is computed: configurations, Relax modules, checkpoint readers, quantization."""
