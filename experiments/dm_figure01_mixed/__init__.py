"""Figure A1 of Decoupled Mixup: accuracy on mixed images while a network trains."""
