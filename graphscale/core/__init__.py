"""What every room stands on: errors, model files, the plan, resampling, runtime."""
