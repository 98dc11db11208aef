"""The two loops around the cores: publish the newest revision downwards, report the streams' events upwards."""
