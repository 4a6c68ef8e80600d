"""What is known of a training run, as one page: `mufun report`."""
