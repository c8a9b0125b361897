"""Renders results/<scale>/ and measured/<scale>/ as tables and one static page; reads no checkpoint, trains nothing."""
