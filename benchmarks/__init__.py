"""Named workloads against named baselines. They report percentiles and ratios and assert nothing about seconds."""
