"""Renders results/<scale>/*.json as tables and one static page; reads no checkpoint, trains nothing."""
