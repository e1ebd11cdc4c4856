"""Prediction over millions of images with Apache Beam (the extra `beam`)."""
