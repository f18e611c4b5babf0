"""From a prompt to what the U-Net attends to: prompt grammar, tokenizer, conditioning."""
