"""The lowest floor, which every other package uses: errors, files, plan, resampling, runtime."""
