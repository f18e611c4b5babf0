"""From a prompt to the context of the U-Net: prompt grammar, tokenizer, conditioning."""
